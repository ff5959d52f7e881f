"""Commands on single files: classify one, make labelled images."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rhythmwatch.cli import options
from rhythmwatch.cli.offline import MODELS


class Split(StrEnum):
    """How images are parted."""

    PATIENT = "patient"
    RANDOM = "random"


def classify(
    file: Annotated[Path, typer.Argument(help="PNG or JPEG of a beat's spectrogram; WFDB record, EDF, CSV or JSON.")],
    heat: Annotated[
        Path | None, typer.Option("--heat", envvar="RHYTHMWATCH_HEAT", help="Write an image's heat map as PNG.")
    ] = None,
    models: MODELS = None,
    as_json: options.AsJson = False,
) -> None:
    """Classify one file: a beat's spectral image, or a recording with all its beats."""
    from ingest.recordings import RecordingError
    from rhythmwatch.classify import classify_file, heat_png
    from rhythmwatch.models import ModelError, load_models
    from rhythmwatch.pictures import PictureError

    with options.one_line_errors(RecordingError, PictureError, ModelError, OSError):
        result = classify_file(file, load_models(models))
        if heat is not None and result["kind"] == "image":
            heat.write_bytes(heat_png(result))
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for warning in result.get("warnings", []):
        options.errors.print(f"rhythmwatch: {warning}", style="yellow", highlight=False, soft_wrap=True)
    if result["kind"] == "image":
        table = Table("class", "probability")
        for name, p in sorted(result["probabilities"].items(), key=lambda item: -item[1]):
            table.add_row(name, f"{p:.4f}")
        options.console.print(table)
        return
    table = Table("s", "class", "p", "second", "RR ms", "rhythm")
    for beat in result["beats"]:
        table.add_row(
            f"{beat['seconds']:.3f}", beat["study"] or beat["class"], f"{beat['p']:.3f}", beat["second"],
            str(beat["rr_ms"] or "-"), beat["rhythm"],
        )  # fmt: skip
    options.console.print(table)
    for alarm in result["alarms"]:
        options.console.print(f"{alarm['onset_s']:.1f} s  {alarm['kind']}  {alarm['detail']}", highlight=False)
    options.console.print(", ".join(f"{name}: {count}" for name, count in result["summary"].items()), highlight=False)


def images(
    records: Annotated[list[str], typer.Argument(help="Annotated WFDB records, by name in the data or by path.")],
    out: Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for train/ and test/.")],
    data: options.Data = None,
    split: Annotated[
        Split, typer.Option("--split", envvar="RHYTHMWATCH_SPLIT", help="Part by patient, or beats at random.")
    ] = Split.PATIENT,
    models: MODELS = None,
) -> None:
    """Write labelled spectral images of beats in class folders."""
    from ingest.recordings import RecordingError, data_folder
    from rhythmwatch.models import ModelError, load_models

    try:
        from rhythmwatch.imaging import write_images
    except ImportError as error:
        options.fail(f"this needs the extra 'train' ({error.name} is missing): pip install 'rhythmwatch[train]'")
    with options.one_line_errors(RecordingError, ModelError, OSError):
        counts = write_images(records, data_folder(data), out, load_models(models), split=split.value)
    table = Table("folder", "images")
    for folder, count in sorted(counts.items()):
        table.add_row(folder, str(count))
    options.console.print(table)
