"""Training of the rhythm models: labels, figures and trees say what they claim."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dsp.layout import FS
from inference import qrs_model, rhythm
from inference.contract import Contract
from inference.rhythm import AF_FEATURES, CODES, SHOCK_FEATURES, RhythmModel, Rows, Verdicts
from inference.runtime import Model
from inference.training import rhythm as trainer
from inference.training import rhythm_data, rhythm_scores, trees
from inference.training.records import Record
from inference.training.rhythm_data import AF, DOUBT, NOISE, OTHER, VF, VT, Example
from inference.training.rhythm_scores import Judged

CONFIG = Path(trainer.__file__).parent / "configs" / "rhythm.toml"
SETTINGS = {"trees": 12, "leaves": 7, "rate": 0.2, "feature_fraction": 0.8, "least": 20, "l2": 1.0}


def record(codes: list[tuple[int, str]], seconds: int, flutter: tuple[tuple[int, int], ...] = ()) -> Record:
    """Make a silent record of 100 Hz with rhythm changes at given seconds."""
    none = np.zeros(0, np.int64)
    return Record(
        "1", "mitdb", 100.0, ("MLII",), np.zeros((100 * seconds, 1), np.float32), none, np.zeros(0, "U1"),
        np.array([100 * at for at, _ in codes], np.int64), tuple(code for _, code in codes), flutter,
    )  # fmt: skip


def example(label: list[int], **changed: Any) -> Example:
    """Make an example in which every second is due."""
    m = len(label)
    rows = Rows(
        np.array([0, m]), FS * np.arange(1, m + 1), np.zeros((m, len(SHOCK_FEATURES)), np.float32),
        np.ones(m, np.bool_), np.zeros((m, len(AF_FEATURES)), np.float32), np.arange(1, m + 1) % 3 == 0,
        np.ones(m, np.float32), np.zeros(m, np.float32), np.full(m, 5, np.float32),
    )  # fmt: skip
    plain = {"database": "mitdb", "name": "1", "copy": "clean", "whole": ""}
    return Example(rows=rows, label=np.array(label, np.int8), **{**plain, **changed})


def said(of: Example, codes: list[str], af: float = 0.9) -> Judged:
    """Verdicts as given."""
    m = len(codes)
    code = np.array([CODES.index(name) for name in codes], np.int8)
    return Judged(
        of, Verdicts(of.rows.offsets, of.rows.end, code, np.ones(m, np.float32), np.ones(m, np.float32),
                     np.full(m, af, np.float32))
    )  # fmt: skip


def test_labels_need_three_seconds_of_one_rhythm() -> None:
    """A second has the rhythm of the three before its end, or is in doubt."""
    labels = rhythm_data.seconds(record([(1, "(N"), (5, "(VT"), (9, "(AFIB")], 13), 13)
    assert labels.tolist() == [DOUBT] * 3 + [OTHER, OTHER, DOUBT, DOUBT, VT, VT, DOUBT, DOUBT, AF, AF]


def test_flutter_marks_overrule_rhythms() -> None:
    """``[`` to ``]`` is ventricular flutter, whatever the rhythm says."""
    labels = rhythm_data.seconds(record([(0, "(N")], 12, ((400, 1000),)), 12)
    assert labels[6:10].tolist() == [VF] * 4


def test_records_without_rhythms_are_of_other_rhythm() -> None:
    """Where nobody annotated rhythms, nothing is claimed to be shockable or AF."""
    assert rhythm_data.seconds(record([], 5), 5).tolist() == [OTHER] * 5


def test_noise_has_the_asked_level() -> None:
    """At 0 dB the noise has the power of the QRS: an eighth of its squared height."""
    rng = np.random.default_rng(0)
    mv = np.zeros(60 * 250, np.float32)
    mv[::200] = 2.0
    loud = rhythm_data.noisy(mv, 250.0, rng, lambda r, n, _: r.normal(size=n), 1.0, (0.0, 0.0))
    assert np.mean((loud - mv) ** 2) == pytest.approx(4 / 8, rel=0.05)


def test_figures_count_seconds_alarms_and_delays() -> None:
    """A late verdict costs sensitivity and delay; a run of four false seconds is one alarm, of three none."""
    label = [OTHER] * 20 + [VF] * 10
    codes = ["N"] * 22 + ["VFL"] * 8
    figures = rhythm_scores.shock_figures([said(example(label), codes)])
    assert figures["vf"] == 80.0
    assert figures["specificity"] == 100.0
    assert figures["delay"] == [5.5, 5.5]
    assert (figures["false_alarms"], figures["missed"], figures["episodes"]) == (0, 0, 1)
    healthy = said(example([OTHER] * 30), ["N"] * 10 + ["VT"] * 3 + ["N"] * 5 + ["VT"] * 4 + ["N"] * 8)
    assert rhythm_scores.shock_figures([healthy])["false_alarms"] == 1


def test_doubtful_and_early_seconds_are_not_counted() -> None:
    """The first four seconds and seconds in doubt are no windows."""
    figures = rhythm_scores.shock_figures([said(example([VT] * 4 + [DOUBT] * 4 + [VT] * 2), ["N"] * 9 + ["VT"])])
    assert figures["vt"] == 50.0


def test_af_figures_start_with_the_first_score() -> None:
    """Seconds before the first AF score, and noise, are left out."""
    figures = rhythm_scores.af_figures(
        [said(example([AF] * 6 + [OTHER] * 4), ["N"] * 3 + ["AFIB"] * 4 + ["NOISE"] * 3)]
    )
    assert figures["sensitivity"] == 75.0
    assert figures["specificity"] == 0.0


def test_challenge_figures_count_recordings() -> None:
    """F1 of class A over whole recordings."""
    judged = [
        said(example([AF] * 9, whole="A"), ["AFIB"] * 9),
        said(example([AF] * 9, whole="A"), ["N"] * 9, af=0.1),
        said(example([OTHER] * 9, whole="O"), ["AFIB"] * 9),
        said(example([OTHER] * 9, whole="N"), ["N"] * 9, af=0.1),
    ]
    assert rhythm_scores.challenge_figures(judged) == {"f1": 0.5, "found": 1, "missed": 1, "false": {"O": 1}}


def test_af_teaches_only_where_it_lasts() -> None:
    """After a change of rhythm rows teach nothing until the last 20 s are mostly of one kind."""
    labels = trainer.af_labels(example([OTHER] * 20 + [AF] * 20))
    assert labels[19] == OTHER
    assert labels[22] == DOUBT
    assert labels[39] == AF


def test_tables_balance_classes_and_leave_out_copies() -> None:
    """Both classes weigh the same; a copy without a weight is not used."""
    mixed = example([OTHER] * 30 + [VT] * 10 + [NOISE] * 5)
    loud = example([OTHER] * 30, copy="noisy")
    weight = {"power": -0.6, "noise": 0.3, "clean": 1.0}
    features, labels, weights = trainer.shock_table([mixed, loud], weight, {"shockable": 1, "other": 1})
    assert features.shape == (45, len(SHOCK_FEATURES))
    assert weights[labels].sum() == pytest.approx(weights[~labels].sum())
    assert weights[-1] < weights[0]


def test_folds_part_patients() -> None:
    """A patient's copies share a fold, and each fold gets records of each database."""
    examples = [example([OTHER], name=str(k), copy=c) for k in range(10) for c in ("clean", "noisy")]
    fold = trainer.folds(examples, 5, 1)
    assert len(fold) == 10
    assert sorted(fold.values()) == sorted([*range(5)] * 2)


def learnable() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows whose first two columns tell the class."""
    rng = np.random.default_rng(4)
    features = np.round(rng.normal(size=(600, 5)), 2).astype(np.float32)
    return features, (features[:, 0] + features[:, 1] > 0.3)


def test_fitting_is_reproducible() -> None:
    """The same seed gives the same trees."""
    features, labels = learnable()
    first, second = (trees.fit(features, labels, np.ones(600), SETTINGS, 3) for _ in range(2))
    assert first.model_to_string() == second.model_to_string()


def test_onnx_trees_say_what_the_boosters_say(tmp_path: Path) -> None:
    """The exported graph gives the boosters' mean, also for rows that lie on a threshold."""
    features, labels = learnable()
    boosters = [trees.fit(features, labels, np.ones(600), SETTINGS, seed) for seed in (1, 2)]
    thresholds = [
        node["threshold"]
        for booster in boosters
        for tree in booster.dump_model()["tree_info"]
        for _, node, _ in trees._numbered(tree["tree_structure"])
        if "threshold" in node
    ]
    edge = np.tile(np.array(thresholds, np.float32)[:, None], (1, 5))
    rows = np.concatenate([features, edge, np.nextafter(edge, np.float32(np.inf))])
    names = tuple("abcde")
    trees.save(tmp_path / "t.onnx", boosters, Contract("t", "1", FS, ("t",), names))
    model = Model(tmp_path / "t.onnx")
    np.testing.assert_allclose(model.run(rows)[0][:, 0], trees.predict(boosters, rows), atol=2e-6)
    assert model.contract.features == names


@pytest.mark.data
def test_flutter_of_record_207_is_called(data_dir: Path) -> None:
    """Ventricular flutter of mitdb 207 through the live stages: most of its seconds, and no alarm in record 103."""
    weights = qrs_model.load()
    model = RhythmModel.load()
    shown, quiet = (
        next(rhythm_data.recordings(data_dir, "mitdb", [name], weights, 0, {"seed": 0})) for name in ("207", "103")
    )
    judged = [rhythm_scores.judge(e, model.classify(e.rows)) for e in (shown, quiet)]
    figures = rhythm_scores.shock_figures(judged)
    assert figures["vf"] > 85
    assert figures["false_alarms"] == 0


@pytest.mark.data
def test_small_training_runs_and_its_files_load(data_dir: Path, tmp_path: Path) -> None:
    """A model of a few trees on three records: the same twice, written, loaded by the live stage, AF of 201 found."""
    config = tomllib.loads(CONFIG.read_text("utf-8"))
    config["shock"]["trees"] = config["af"]["trees"] = 8
    config["af"]["rate"] = 0.3  # so few trees must each say more, or their verdict hangs by the limit it needs
    weights = qrs_model.load()
    settings = {"seed": 1, **config["noise"]}
    examples = list(rhythm_data.recordings(data_dir, "mitdb", ["201", "207", "101"], weights, 1, settings))
    assert [e.copy for e in examples[:3]] == ["clean", "second", "noisy"]
    boosters, again = (trainer.fit_both(examples, config) for _ in range(2))
    for one, two in zip((*boosters[0], *boosters[1]), (*again[0], *again[1]), strict=True):
        assert one.model_to_string() == two.model_to_string()
    trainer.write(tmp_path, boosters, examples, "test")
    model = RhythmModel.load(tmp_path)
    judged = rhythm_scores.judge(examples[0], model.classify(examples[0].rows))
    assert rhythm_scores.af_figures([judged])["sensitivity"] > 90
    assert model.version == "test+test"
    assert rhythm.record_verdict(judged.verdicts) in CODES
