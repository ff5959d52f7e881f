"""Runs the recordings of the evaluation through the live pipeline, in a pool of processes."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import Progress

from inference.shipped import shipped
from inference.training import records as labelled
from inference.training import splits
from ingest.recordings import Recording, read_record
from rhythmwatch.accuracy import Report
from rhythmwatch.challenge import judge
from rhythmwatch.episodes import timeline
from rhythmwatch.listening import listen
from rhythmwatch.models import Models, load_models
from rhythmwatch.results import Results
from rhythmwatch.scores import score
from rhythmwatch.stress import LEVELS, motion_hour, noisy_counts

QUICK: Final = ("119", "203", "208", "223")
"""DS1 records of ``--quick``: they train, so these figures only guard against a step back."""

BATCH: Final = 25
"""Recordings of the challenge in one job."""

CHALLENGE_GAIN: Final = 1000.0
"""Units per mV of the challenge's files."""

_models: Models | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Records of one database that a process works off: ``mitdb``, ``vfdb``, ``nstdb``, ``motion`` or ``cinc2017``."""

    database: str
    names: tuple[str, ...]


def jobs_of(data: Path, *, quick: bool) -> list[Job]:
    """List what is to be run, the longest first."""
    if quick:
        return [Job("mitdb", (name,)) for name in QUICK]
    jobs = [Job("motion", ("118",))]
    jobs += [Job("vfdb", (name,)) for name in splits.VFDB_TEST]
    jobs += [Job("mitdb", (name,)) for name in labelled.names(data, "mitdb")]
    jobs += [Job("nstdb", (name,)) for name in LEVELS]
    archive = data / "cinc2017.tar"
    wanted = sorted(name for name in labelled.challenge_labels(archive) if splits.challenge_test(name))
    return jobs + [Job("cinc2017", tuple(wanted[at : at + BATCH])) for at in range(0, len(wanted), BATCH)]


def run_job(data: Path, job: Job, models: Models) -> Results:
    """Work a job off.

    Parameters
    ----------
    data : Path
        Folder of the databases.
    job : Job
    models : Models
        The networks.

    Returns
    -------
    Results
        Of these records alone.
    """
    results = Results()
    if job.database == "cinc2017":
        for record in labelled.read_challenge(data / "cinc2017.tar", job.names):
            units = np.rint(record.mv * CHALLENGE_GAIN).astype(np.int16)
            recording = Recording(record.name, record.rate, record.leads, CHALLENGE_GAIN, units)
            results.challenge.append(judge(listen(recording, models), record.label))
        return results
    if job.database == "motion":
        analysis = listen(motion_hour(data), models).analysis
        results.motion = analysis.alarms
        return results
    for name in job.names:
        record = labelled.read(data, job.database, name)
        heard = listen(read_record(data / job.database / name), models)
        if job.database == "nstdb":
            results.noise[name] = noisy_counts(heard.analysis, record)
            continue
        results.timelines[f"{job.database}/{name}"] = timeline(heard.analysis, record)
        if job.database == "mitdb":
            results.beats.append(score(heard.analysis, record, heard.probabilities))
    return results


def _start(folder: Path | None) -> None:
    global _models
    _models = load_models(folder)


def _one(data: Path, job: Job) -> Results:
    if _models is None:
        raise RuntimeError("the models of this process are not loaded")
    return run_job(data, job, _models)


def run_evaluation(data: Path, models: Path | None, *, quick: bool, jobs: int, bar: Progress) -> Report:
    """Run and score all recordings of the evaluation (or the quick set) in a pool of processes.

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

    Raises
    ------
    ModelError
        If the models can't be used.
    """
    begun = time.perf_counter()
    version = load_models(models).version
    work = jobs_of(data, quick=quick)
    totals: dict[str, int] = {}
    for job in work:
        totals[job.database] = totals.get(job.database, 0) + len(job.names)
    tasks = {name: bar.add_task(name, total=total) for name, total in totals.items()}
    results = Results()
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(models,)) as pool:
        running = {pool.submit(_one, data, job): job for job in work}
        try:
            for future in as_completed(running):
                results.add(future.result())
                bar.update(tasks[running[future].database], advance=len(running[future].names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Report.of(results.in_order(), version, models or shipped(), time.perf_counter() - begun)
