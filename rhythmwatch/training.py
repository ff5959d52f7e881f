"""``rhythmwatch train``: the trainer that a configuration names."""

from __future__ import annotations

import tomllib
from pathlib import Path

from rich.console import Console

from inference.training import beat_random, beat_search, beats, qrs, recording, rhythm
from inference.training.baselines import run

KINDS = ("qrs", "beat", "rhythm", "recording", "baselines")


def train_from(
    config: Path, data: Path, out: Path, *, random_split: bool = False, search: int = 0, resume: bool = False
) -> None:
    """Train what ``kind`` in a configuration names, and export it.

    Parameters
    ----------
    config : Path
        TOML file.
    data : Path
        Folder of the databases.
    out : Path
        Folder for the ONNX files and the report.
    random_split : bool
        Train the beat network on a random 80 % of mitdb's beats instead and report on the rest; nothing is exported.
    search : int
        Trials of a search over the settings of the beat network instead, those of an earlier run counted.
    resume : bool
        Go on from the checkpoints of a training of the beat network that was cut off.

    Raises
    ------
    ValueError
        If the configuration is no TOML, names no kind, or of a kind that can't do what is asked.
    """
    try:
        kind = tomllib.loads(config.read_text(encoding="utf-8")).get("kind")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is no TOML: {error}") from error
    console = Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)

    def progress(text: str) -> None:
        console.print(text, highlight=False)

    if kind != "beat" and (random_split or search or resume):
        raise ValueError("only a configuration of kind beat has --random-split, --search and --resume")
    if random_split:
        beat_random.random_split(config, data, out / "random_split.json", progress)
    elif kind == "qrs":
        qrs.train(config, data, out / "qrs.onnx", progress)
    elif search:
        beat_search.search(config, data, out, search, progress)
    elif kind == "beat":
        beats.train(config, data, out / "beat.onnx", progress, resume=resume)
    elif kind == "rhythm":
        rhythm.train(config, data, out, progress)
    elif kind == "recording":
        recording.train(config, data, out, progress)
    elif kind == "baselines":
        run.main(["--data", str(data), "--config", str(config), "--out", str(out / "baselines.json")])
    else:
        raise ValueError(f"{config} must name its kind: one of {', '.join(KINDS)}")
