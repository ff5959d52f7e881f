"""The page ``docs/accuracy.md``, from figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from inference.training.records import CLASSES
from inference.training.scoring import GROUPS
from rhythmwatch.accuracy_targets import TARGETS

INTRODUCTION: Final = """\
# Accuracy

Written by `rhythmwatch evaluate` (`make evaluate`); the same figures as numbers: `accuracy.json`. Every figure below
comes through the live pipeline from raw samples, as a device would send them: causal, with its own R peaks, nothing
learnt from the patient beforehand, none of the reference's marks used.

- Training: DS1 of mitdb and the training parts of the other databases; what trained each model stands in
  `inference/models/*.json`. DS2, the test records of vfdb and of cinc2017 (`inference/training/splits.toml`) never
  trained, tuned or calibrated anything. DS1 trained, so its figures show the fit, not the accuracy. 201 (DS1) and
  202 (DS2) are the same person.
- Beats: conventions of EC57 and `bxb`: match window 150 ms, episodes of VF left out, beat classes without the first
  5 min; QRS from the first second unless said. F and Q taken for V, and Q taken for S, are no false positives. Eight
  classes: over the whole record, `missed` and `invented` beats count as errors.
- Intervals: 95 %, bootstrap over records. Gross: every beat weighs the same; average: every record does.
"""

WHERE: Final = """\
- vfdb: windows of 4 s that end at each second and hold one reference rhythm throughout, against the verdict in force
  at their end; any shockable verdict (VT or VFL) is right in VF and in VT. Not shockable: all else, with (HGEA, (VER
  and (IVR (`without disputed` leaves them out), without (NOISE. Delay: from the reference's onset of an episode of
  8 s or more to `raised_s` of its first VFIB or VTACH alarm.
- Lethal events of mitdb: reference rhythms VT and VFL, 5 or more V in a row at 100/min or more, 4 s and more without
  a beat.
- Electrode motion: `118e_6` minus `118` at 300-420, 540-660 and 780-900 s (no model trained on them), for QRS the
  same stretches of the nstdb records. The hour: record 118 played twice, both leads, with this noise at 0 dB
  throughout: half its amplitude, each stretch faded in and out over 0.5 s, the 6 min repeated with their begin moved
  on by 37 s each time.
- cinc2017: N, A, O or ~ by the verdict on the whole recording (`inference/recording.py`, trained on the training
  part); F1 of AF once more by the live verdicts, where AFIB was in force in over half of the seconds that had a verdict
  other than NOISE. Recordings labelled ~ count as false positives of the label that they got.
- AF by time: every second that the reference gives a rhythm (AFIB and AFL are AF). AF by time and cinc2017 go by the
  marks in the annotation file, which look back to where the rhythm changed (2 s, begin and end of AF 8 s; chosen on
  training records): what a reader of the file sees. Windows, delays and alarms go by the verdict at its own time.
"""

_LISTED: Final = 60
"""Longest list of records that is written out."""


def page(figures: dict[str, Any], plots: Sequence[str]) -> str:
    """Write the page.

    Parameters
    ----------
    figures : dict
        From `rhythmwatch.figures`.
    plots : sequence of str
        Files in ``accuracy/``.
    """
    lines = [*INTRODUCTION.splitlines(), *WHERE.splitlines(), "", *_targets(figures), "", *_beats(figures["beats"])]
    if "vfdb" in figures:
        lines += ["", *_vfdb(figures["vfdb"])]
    if "false_lethal" in figures:
        lines += ["", *_lethal(figures)]
    if "af" in figures:
        lines += ["", *_af(figures["af"])]
    if "cinc2017" in figures:
        lines += ["", *_challenge(figures["cinc2017"])]
    if "qrs_strangers" in figures["training"]:
        lines += ["", *_strangers(figures["training"]["qrs_strangers"])]
    if "random_split" in figures["training"]:
        lines += ["", *_random_split(figures["training"]["random_split"])]
    trained = _trained(figures["training"])
    if trained:
        lines += ["", "## What trained the models", "", *trained]
    if plots:
        lines += ["", "## Plots", ""]
        lines += [f"![{name.removesuffix('.png')}](accuracy/{name})" for name in plots]
    lines += ["", "## Per record", "", *_records(figures["beats"]["records"])]
    lines += ["", f"Models {figures['models']}."]
    return "\n".join(lines) + "\n"


def number(value: Any, digits: int = 1) -> str:
    """Write a number, or nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _targets(figures: dict[str, Any]) -> list[str]:
    rows = []
    for target in TARGETS:
        value = target.value(figures)
        if value is not None:
            floor, aim = (number(mark, target.digits) for mark in (target.floor, target.aim))
            rows.append((target.measure, number(value, target.digits), floor, aim, target.verdict(value)))
    return ["## Against the targets", "", *_table(("measure", "figure", "floor", "aim", "reached"), rows)]


def _beats(beats: dict[str, Any]) -> list[str]:
    sets = [name for name in ("DS2", "DS1", "paced", "all") if name in beats]
    lines = ["## QRS", ""]
    head: tuple[str, ...] = ("records", "Se", "95 %", "+P", "95 %", "missed", "false", "average Se", "average +P")
    for title, key in (
        ("From the first second, 150 ms", "qrs"),
        ("From the first second, 50 ms", "qrs_50ms"),
        ("Without the first 5 min, 150 ms", "qrs_bxb"),
    ):
        lines += [f"{title}:", "", *_table(head, [_gross(name, beats[name], key, 2) for name in sets]), ""]
    lines += ["## Ventricular and supraventricular ectopic beats", ""]
    head = ("records", "class", "Se", "95 %", "+P", "95 %", "F1", "95 %", "average Se", "average +P", "beats")
    rows = []
    for name in sets:
        for title, key in (("VEB", "veb"), ("SVEB", "sveb"), ("SVEB without 232", "sveb_without_232")):
            if key in beats[name]:
                figures = beats[name][key]
                f1 = (number(figures["f1"], 3), _bounds(figures["f1_95"], 3))
                cells = _gross(name, beats[name], key, 1)
                rows.append((cells[0], title, *cells[1:5], *f1, *cells[7:9], str(figures["beats"])))
    lines += _table(head, rows)
    test = beats.get("DS2")
    if test:
        lines += ["", "## AAMI groups, DS2", ""]
        lines += [f"Accuracy {number(test['group_accuracy'], 2)} % of the beats that were found.", ""]
        lines += _matrix(test["matrix_groups"], GROUPS)
        lines += ["", "## Eight classes, DS2", ""]
        lines += [
            f"Accuracy {number(test['accuracy'], 2)} % of the beats that were found; expected calibration error "
            f"{number(test['calibration']['ece'], 4)} (15 bins).",
            "",
        ]
        head = ("class", "beats", "accuracy", "precision", "recall", "specificity", "F1", "AUC")
        lines += _table(head, [_class(name, each) for name, each in test["classes"].items() if each["beats"]])
        lines += ["", *_matrix(test["matrix_classes"], CLASSES)]
        lines += ["", "## Bundle branch block against normal, DS2", "", *_bundles(beats)]
    return lines


def _gross(name: str, figures: dict[str, Any], key: str, digits: int) -> tuple[str, ...]:
    row = figures[key]
    return (
        f"{name} ({len(figures['records'])})",
        number(row["se"], digits),
        _bounds(row["se_95"], digits),
        number(row["ppv"], digits),
        _bounds(row["ppv_95"], digits),
        str(row["missed"]),
        str(row["false"]),
        number(row["average_se"], digits),
        number(row["average_ppv"], digits),
    )


def _bounds(pair: Sequence[float | None], digits: int) -> str:
    return "" if pair[0] is None else f"{number(pair[0], digits)} to {number(pair[1], digits)}"


def _class(name: str, each: dict[str, Any]) -> tuple[str, ...]:
    cells = (number(each[key], 2) for key in ("accuracy", "precision", "recall", "specificity"))
    return (name, str(each["beats"]), *cells, number(each["f1"], 3), number(each["auc"], 4))


def _matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[str]:
    rows = [(name, *map(str, row)) for name, row in zip((*names, "invented"), matrix, strict=True)]
    return _table(("reference", *names, "missed"), rows)


def _bundles(beats: dict[str, Any]) -> list[str]:
    rows = []
    for name, item in beats["records"].items():
        for key in ("lbbb", "rbbb"):
            if item["set"] == "DS2" and key in item:
                each = item[key]
                cells = (number(each["se"]), number(each["ppv"]), number(each["f1"], 3))
                rows.append((name, key.upper(), *cells, str(each["beats"]), str(each["false"])))
    for key in ("lbbb", "rbbb"):
        each = beats["DS2"][key]
        cells = (number(each["se"]), number(each["ppv"]), number(each["f1"], 3))
        rows.append(("all", key.upper(), *cells, str(each["beats"]), str(each["false"])))
    return _table(("record", "class", "Se", "+P", "F1", "beats", "false"), rows)


def _vfdb(figures: dict[str, Any]) -> list[str]:
    head = (
        "records", "VF, VFL Se", "VT Se", "specificity", "without disputed", "named VFL in VF", "named VT in VT",
        "shockable in noise", "episodes", "without alarm", "delay median, s", "90 %, s",
    )  # fmt: skip
    sets = {name: each for name, each in figures.items() if name != "records"} | figures["records"]
    rows = []
    for name, each in sets.items():
        keys = ("vf", "vt", "specificity", "specificity_undisputed", "named_vf", "named_vt", "noise")
        cells = [number(each[key]) for key in keys]
        delay = [number(each[key]) for key in ("delay_median", "delay_90")]
        rows.append((name, *cells, str(each["episodes"]), str(each["missed"]), *delay))
    return ["## Shockable rhythms, vfdb test records", "", *_table(head, rows)]


def _lethal(figures: dict[str, Any]) -> list[str]:
    each = figures["false_lethal"]

    def listed(alarms: Sequence[Sequence[Any]]) -> str:
        return ", ".join(f"{kind} in {name} at {onset:.0f} s" for name, kind, onset in alarms) or "none"

    calm = each["records_without_event"]
    lines = [
        "## False lethal alarms (VFIB, VTACH, ASYSTOLE)",
        "",
        f"mitdb, {len(calm)} records without such an event ({', '.join(calm)}), {each['hours']:.1f} h: "
        f"{len(each['false'])} ({listed(each['false'])}).",
        "",
        f"mitdb, all records, {each['all_hours']:.1f} h, alarms that touch no event within 10 s: "
        f"{len(each['all_false'])} ({listed(each['all_false'])}).",
    ]
    if "motion_hour" in figures:
        text = ", ".join(f"{kind} {count}" for kind, count in figures["motion_hour"].items() if kind != "lethal")
        lines += ["", f"118 with electrode motion at 0 dB, one hour, alarms of all kinds: {text}."]
    return lines


def _af(figures: dict[str, Any]) -> list[str]:
    head = ("records", "Se", "Sp", "+P", "episodes Se", "+P", "duration Se", "+P", "AF, s", "other, s")
    rows = []
    for name, each in figures.items():
        cells = [number(each[key]) for key in ("se", "sp", "ppv")]
        episodes = [
            number(each["episodes"][key]) for key in ("episode_se", "episode_ppv", "duration_se", "duration_ppv")
        ]
        rows.append((name, *cells, *episodes, str(each["seconds"]), str(each["other_seconds"])))
    lines = ["## Atrial fibrillation by time, mitdb", "", *_table(head, rows)]
    if "DS2" in figures:
        rows = [
            (name, number(each["se"]), str(each["seconds"]), str(each["false"]))
            for name, each in figures["DS2"]["records"].items()
        ]
        lines += ["", *_table(("DS2 record", "Se", "AF, s", "false, s"), rows)]
    return lines


def _challenge(figures: dict[str, Any]) -> list[str]:
    f1 = figures["f1"]
    lines = [
        "## Whole recordings, cinc2017 test part",
        "",
        f"{figures['recordings']} recordings, {figures['hours']:.1f} h: F1 {number(f1['N'], 3)} (N), "
        f"{number(f1['A'], 3)} (A), {number(f1['O'], 3)} (O), mean {number(figures['mean_f1'], 3)}. AF by the "
        f"verdict over half of the record: {number(figures['f1_af_half'], 3)}; by the AF score over half of it: "
        f"{number(figures['f1_af_record_score'], 3)}.",
        "",
    ]
    rows = [(label, *map(str, counts)) for label, counts in figures["table"].items()]
    return lines + _table(("reference", "N", "A", "O", "~"), rows)


def _strangers(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            part,
            number(own["sensitivity"], 3),
            number(own["precision"], 3),
            *(str(own[key]) for key in ("beats", "missed", "invented")),
        )
        for part, own in report.items()
        if isinstance(own, dict)
    ]
    return [
        "## QRS of patients that never trained",
        "",
        "Main lead, 150 ms, from the first second. The model trained on DS2 (with svdb and the training parts of "
        "cinc2017 and nstdb, as the shipped one) is made for this table alone: "
        "`rhythmwatch train --config inference/training/configs/qrs_strangers.toml`.",
        "",
        *_table(("records", "Se", "+P", "beats", "missed", "invented"), rows),
    ]


def _random_split(report: dict[str, Any]) -> list[str]:
    rows = [
        (name, str(each["beats"]), *(number(each[key], 4) for key in ("sensitivity", "precision", "f1")))
        for name, each in report["classes"].items()
    ]
    return [
        "## Random split",
        "",
        f"{report['what']}: {report['test_beats']} test beats. Comparable with studies that split beats at random, and "
        "no measure of what a new patient gets.",
        "",
        *_table(("class", "beats", "sensitivity", "precision", "F1"), rows),
    ]


def _trained(reports: dict[str, Any]) -> list[str]:
    rows = []
    for model, report in reports.items():
        names = report.get("training_records") if isinstance(report, dict) else None
        if not names:
            continue
        sets: dict[str, list[str]] = {}
        for name in names:
            database, _, record = name.partition("/")
            sets.setdefault(database, []).append(record)
        text = "; ".join(
            f"{database}: {', '.join(each)}" if len(each) <= _LISTED else f"{database}: {len(each)} recordings"
            for database, each in sets.items()
        )
        rows.append((model, text))
    return _table(("model", "records"), rows) if rows else []


def _records(records: dict[str, Any]) -> list[str]:
    rows = []
    for name, item in records.items():
        cells = [name, item["set"], str(item["qrs"]["missed"]), str(item["qrs"]["false"])]
        for key in ("veb", "sveb"):
            cells += [number(item[key]["se"]), number(item[key]["ppv"]), str(item[key]["beats"])]
        rows.append(cells)
    head = ("record", "set", "missed", "false", "VEB Se", "VEB +P", "V", "SVEB Se", "SVEB +P", "S")
    return _table(head, rows)
