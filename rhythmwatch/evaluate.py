"""Scores of the shipped models, through the live pipeline, on the committed splits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from rich.progress import Progress

from inference.training import records as labelled
from ingest.recordings import read_record
from rhythmwatch.accuracy import Report
from rhythmwatch.analyze import analyze_recording
from rhythmwatch.models import Models, load_models
from rhythmwatch.scores import Scored, score

QUICK: Final = ("119", "203", "208", "223")
"""DS1 records of ``--quick``: they train, so these figures only guard against a step back."""

_models: Models | None = None


def _start(folder: Path | None) -> None:
    global _models
    _models = load_models(folder)


def _one(data: Path, name: str) -> Scored:
    if _models is None:
        raise RuntimeError("the models of this process are not loaded")
    recording = read_record(data / "mitdb" / name)
    return score(analyze_recording(recording, _models), labelled.read(data, "mitdb", name))


def run_evaluation(data: Path, models: Path | None, *, quick: bool, jobs: int, bar: Progress) -> Report:
    """Run and score every record of mitdb (or the quick set) in a pool of processes.

    Parameters
    ----------
    data : Path
        Folder of the databases.
    models : Path, optional
        Folder of the models, else the shipped ones.
    quick : bool
        `QUICK` only.
    jobs : int
        Processes.
    bar : Progress
        Shows what is done.

    Returns
    -------
    Report
    """
    names: Sequence[str] = QUICK if quick else labelled.names(data, "mitdb")
    task = bar.add_task("mitdb", total=len(names))
    scored: list[Scored] = []
    with ProcessPoolExecutor(jobs, initializer=_start, initargs=(models,)) as pool:
        for result in pool.map(_one, [data] * len(names), names):
            scored.append(result)
            bar.update(task, advance=1, description=result.name)
    return Report.of(scored, load_models(models).version)
