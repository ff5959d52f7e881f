"""Commands on recordings and models: analysis, training, evaluation."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rhythmwatch.cli import options

if TYPE_CHECKING:
    from rhythmwatch.analyze import Analysis

data = typer.Typer(help="Recordings to train on and to try things with.", no_args_is_help=True)

MODELS = Annotated[
    Path | None,
    typer.Option("--models", envvar="RHYTHMWATCH_MODELS", help="Folder of ONNX models (else the shipped ones)."),
]


class Network(StrEnum):
    """What images train."""

    OURS = "ours"
    STUDY = "study"


def progress_bar(what: str) -> Progress:
    """Bar for long work, on standard error."""
    return Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
        console=options.errors,
    )  # fmt: skip


def warm() -> None:
    """Compile the kernels into their cache, so that the first start is as fast as the next one."""
    from rhythmwatch.warm import compile_kernels

    with options.console.status("compiling kernels, once"):
        seconds = compile_kernels()
    options.console.print(f"kernels ready ({seconds:.1f} s)")


def analyze(
    records: Annotated[list[str], typer.Argument(help="Records, by name in the database or by path.")],
    out: Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for the results.")],
    database: Annotated[
        Path, typer.Option("--database", envvar="RHYTHMWATCH_DATABASE", help="Folder of the WFDB records.")
    ] = Path(),
    annotator: Annotated[
        str, typer.Option("--annotator", envvar="RHYTHMWATCH_ANNOTATOR", help="Suffix of the annotation files.")
    ] = "rw",
    lead: Annotated[
        str | None, typer.Option("--lead", envvar="RHYTHMWATCH_LEAD", help="Lead (else MLII, else the first).")
    ] = None,
    models: MODELS = None,
    as_json: options.AsJson = False,
) -> None:
    """Run records through the live pipeline and write beats, rhythms and alarms beside each other."""
    from inference.recording import LABELS
    from rhythmwatch.analyze import analyze_records
    from rhythmwatch.listening import analyze_whole
    from rhythmwatch.models import ModelError, load_models

    if not annotator.isalnum():
        options.fail(f"annotator {annotator!r}: letters and digits only")
    with options.one_line_errors(ModelError, OSError):
        loaded = load_models(models)
    rows: list[dict[str, Any]] = []
    with progress_bar("analyze") as bar:
        task = bar.add_task("", total=len(records))

        def done(name: str, analysis: Analysis | None, error: str) -> None:
            bar.update(task, advance=1, description=name)
            if analysis is None:
                options.errors.print(f"rhythmwatch: {error}", style="red", highlight=False, soft_wrap=True)
                rows.append({"record": name, "error": error})
                return
            rows.append(
                {
                    "record": analysis.name,
                    "seconds": round(analysis.length / analysis.rate, 3),
                    "lead": analysis.lead,
                    "beats": len(analysis.beats),
                    "ventricular": sum(beat.code == "V" for beat in analysis.beats),
                    "alarms": len(analysis.alarms),
                    "recording": analysis.whole
                    and {
                        "verdict": analysis.whole.label,
                        "probabilities": {
                            label: round(p, 4) for label, p in zip(LABELS, analysis.whole.probabilities, strict=True)
                        },
                    },
                }
            )

        with options.one_line_errors(OSError):
            failed = analyze_records(
                records, database, out, loaded, annotator=annotator, lead=lead, examine=analyze_whole, done=done
            )
    if as_json:
        sys.stdout.write(json.dumps({"out": str(out), "records": rows}) + "\n")
    else:
        table = Table("record", "s", "lead", "beats", "V", "alarms")
        for row in rows:
            if "error" not in row:
                table.add_row(
                    *(str(row[key]) for key in ("record", "seconds", "lead", "beats", "ventricular", "alarms"))
                )
        options.console.print(table)
        options.console.print(f"results in {out}")
    if failed:
        raise typer.Exit(1)


def train(
    out: Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for the ONNX file and report.")],
    config: Annotated[
        Path | None, typer.Option("--config", envvar="RHYTHMWATCH_CONFIG", help="TOML of the model to train.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", envvar="RHYTHMWATCH_IMAGES", help="Train a network on class folders of images (or their zip)."
        ),
    ] = None,
    network: Annotated[
        Network, typer.Option("--network", envvar="RHYTHMWATCH_NETWORK", help="Network that images train.")
    ] = Network.OURS,
    data: options.Data = None,
    random_split: Annotated[
        bool,
        typer.Option(
            "--random-split",
            envvar="RHYTHMWATCH_RANDOM_SPLIT",
            help="Only report on a random 80/20 split of beats; no model is exported.",
        ),
    ] = False,
    search: Annotated[
        int,
        typer.Option(
            "--search",
            envvar="RHYTHMWATCH_SEARCH",
            min=0,
            help="Search over settings instead until there are so many trials; goes on from search.db in --out.",
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", envvar="RHYTHMWATCH_RESUME", help="Go on from the checkpoints of a training that was cut off."
        ),
    ] = False,
) -> None:
    """Train a model from its configuration and export it with its contract, or a network from folders of images."""
    if (config is None) == (images is None):
        options.fail("say what to train: --config FILE, or --images FOLDER")
    try:
        from rhythmwatch.training import train_from
        from rhythmwatch.training_images import train_images
    except ImportError as error:
        options.fail(f"training needs the extra 'train' ({error.name} is missing): pip install 'rhythmwatch[train]'")
    from ingest.recordings import RecordingError, data_folder

    with options.one_line_errors(RecordingError, OSError, ValueError):
        if images is not None:
            train_images(
                images, out, lambda text: options.errors.print(text, highlight=False, markup=False),
                network=network.value,
            )  # fmt: skip
            return
        folder = data_folder(data)
        if folder is None or config is None:
            options.fail("no recordings: name a folder with --data, or run `rhythmwatch data fetch mitdb`")
        train_from(config, folder, out, random_split=random_split, search=search, resume=resume)


def evaluate(
    data: options.Data = None,
    out: Annotated[
        Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for accuracy.md and accuracy.json.")
    ] = Path("docs"),
    quick: Annotated[
        bool, typer.Option("--quick", envvar="RHYTHMWATCH_QUICK", help="A few DS1 records only, nothing written.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", envvar="RHYTHMWATCH_JOBS", min=1, help="Processes to use.")
    ] = os.cpu_count() or 1,
    models: MODELS = None,
    as_json: options.AsJson = False,
) -> None:
    """Score the shipped models on the test records, through the live pipeline."""
    from ingest.recordings import RecordingError, data_folder
    from rhythmwatch.evaluate import run_evaluation
    from rhythmwatch.models import ModelError

    with options.one_line_errors(RecordingError, ModelError, OSError, ValueError):
        folder = data_folder(data)
        if folder is None:
            options.fail("no recordings: name a folder with --data, or run `rhythmwatch data fetch mitdb`")
        with progress_bar("evaluate") as bar:
            report = run_evaluation(folder, models, quick=quick, jobs=jobs, bar=bar)
    if not quick:
        report.write(out)
    if as_json:
        sys.stdout.write(json.dumps(report.figures) + "\n")
    else:
        options.console.print(report.markdown(), markup=False, highlight=False)


@data.command("fetch")
def data_fetch(
    database: Annotated[str, typer.Argument(help="mitdb, svdb, vfdb, nstdb or cinc2017.")],
    to: Annotated[Path, typer.Option("--to", envvar="RHYTHMWATCH_TO", help="Folder for the recordings.")] = Path(
        "data"
    ),
) -> None:
    """Fetch a database from its publisher: resumable, checked against the publisher's checksums."""
    from rhythmwatch.data import DataError, fetch

    with options.one_line_errors(DataError, OSError):
        fetch(database, to)
