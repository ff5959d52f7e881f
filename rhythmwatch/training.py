"""``rhythmwatch train``: the trainer that a configuration names."""

from __future__ import annotations

import tomllib
from pathlib import Path

from rich.console import Console

from inference.training import beats, qrs, rhythm

KINDS = ("qrs", "beat", "rhythm")


def train_from(config: Path, data: Path, out: Path) -> None:
    """Train what ``kind`` in a configuration names, and export it.

    Parameters
    ----------
    config : Path
        TOML file.
    data : Path
        Folder of the databases.
    out : Path
        Folder for the ONNX files and the report.

    Raises
    ------
    ValueError
        If the configuration is no TOML or names no kind.
    """
    try:
        kind = tomllib.loads(config.read_text(encoding="utf-8")).get("kind")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is no TOML: {error}") from error
    console = Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)

    def progress(text: str) -> None:
        console.print(text, highlight=False)

    if kind == "qrs":
        qrs.train(config, data, out / "qrs.onnx", progress)
    elif kind == "beat":
        beats.train(config, data, out / "beat.onnx", progress)
    elif kind == "rhythm":
        rhythm.train(config, data, out, progress)
    else:
        raise ValueError(f"{config} must name its kind: one of {', '.join(KINDS)}")
