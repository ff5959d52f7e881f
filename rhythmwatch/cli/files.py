"""Commands on single files: classify one, make labelled images."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rhythmwatch.cli import options
from rhythmwatch.cli.offline import MODELS, progress_bar


class Split(StrEnum):
    """How images are parted."""

    PATIENT = "patient"
    RANDOM = "random"


class Of(StrEnum):
    """What images show."""

    BEATS = "beats"
    WINDOWS = "windows"


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
    from rhythmwatch.models import ModelError
    from rhythmwatch.picture_model import load_both
    from rhythmwatch.pictures import PictureError

    with options.one_line_errors(RecordingError, PictureError, ModelError, OSError):
        result = classify_file(file, *load_both(models))
        if heat is not None and result["kind"] != "recording":
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
    if result["kind"] == "window":
        options.console.print(f"{result['study'] or result['class']}  p {result['p']:.4f}", highlight=False)
        _reason(result["reason"])
        return
    table = Table("s", "class", "p", "second", "RR ms", "rhythm")
    for beat in result["beats"]:
        table.add_row(
            f"{beat['seconds']:.3f}", beat["study"] or beat["class"], f"{beat['p']:.3f}", beat["second"],
            str(beat["rr_ms"] or "-"), beat["rhythm"],
        )  # fmt: skip
    options.console.print(table)
    for rhythm in result["rhythms"]:
        options.console.print(f"{rhythm['seconds']:.1f} s  {rhythm['code']}", highlight=False)
        if "reason" in rhythm:
            _reason(rhythm["reason"])
    for alarm in result["alarms"]:
        options.console.print(f"{alarm['onset_s']:.1f} s  {alarm['kind']}  {alarm['detail']}", highlight=False)
    options.console.print(", ".join(f"{name}: {count}" for name, count in result["summary"].items()), highlight=False)


def _reason(reason: dict[str, Any]) -> None:
    """Print what made a rhythm verdict."""
    lines = [f"  second best {reason['second']} ({reason['second_p']:.3f})", reason["rule"] and f"  {reason['rule']}"]
    if reason["features"]:
        lines.append(f"  against the patient's second {reason['compared_s']:.0f} s (log-odds of the score):")
    lines += [f"    {f['name']} {f['value']:g}, was {f['usual']:g}: {f['effect']:+.2f}" for f in reason["features"]]
    options.console.print("\n".join(line for line in lines if line), highlight=False, markup=False)


def images(
    records: Annotated[list[str], typer.Argument(help="Annotated WFDB records, by name in the data or by path.")],
    out: Annotated[Path, typer.Option("--out", envvar="RHYTHMWATCH_OUT", help="Folder for train/ and test/.")],
    data: options.Data = None,
    split: Annotated[
        Split, typer.Option("--split", envvar="RHYTHMWATCH_SPLIT", help="Part by patient, or beats at random.")
    ] = Split.PATIENT,
    of: Annotated[
        Of, typer.Option("--of", envvar="RHYTHMWATCH_OF", help="Images of beats, or of windows of one rhythm.")
    ] = Of.BEATS,
    models: MODELS = None,
) -> None:
    """Write labelled spectral images of beats or rhythms in class folders."""
    from ingest.recordings import RecordingError, data_folder
    from rhythmwatch.models import ModelError, load_models

    try:
        from rhythmwatch.imaging import write_images
    except ImportError as error:
        options.fail(f"this needs the extra 'train' ({error.name} is missing): pip install 'rhythmwatch[train]'")
    with options.one_line_errors(RecordingError, ModelError, OSError), progress_bar("images") as bar:
        task = bar.add_task("", total=len(records))
        counts = write_images(
            records, data_folder(data), out, load_models(models), split=split.value, of=of.value,
            done=lambda name: bar.update(task, advance=1, description=name),
        )  # fmt: skip
    if not counts:
        options.fail("no image was written: the records hold no such annotation")
    table = Table("folder", "images")
    for folder, count in sorted(counts.items()):
        table.add_row(folder, str(count))
    options.console.print(table)
