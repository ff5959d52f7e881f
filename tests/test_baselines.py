"""Baselines of the beat model: their data, their sizes, their training, their scores."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from inference.training.baselines import beats, classical, report, run, study_cnn
from inference.training.baselines.cnn1d import Cnn1d, normalised
from inference.training.baselines.fitting import balanced, fit, loss, predict
from inference.training.baselines.judging import Truth, bundle_branch, by_class, by_record
from inference.training.baselines.resnet import ResNet, transferred
from inference.training.records import Record

SETTINGS = {"epochs": 4, "batch": 32, "rate": 3e-3, "decay": 0.0, "balance": 0.5, "cycle": True}


def record(database: str = "mitdb", name: str = "100", rate: float = 360.0) -> Record:
    """Make a minute of a beat a second, every fifth early, inverted and ventricular; tachycardia from 40 s on."""
    times = np.arange(1, 59).astype(float)
    wide = np.arange(times.size) % 5 == 4
    times[wide] -= 0.3
    t = np.arange(int(60 * rate)) / rate
    mv = sum(
        np.where(v, -1.5, 1.0) * np.exp(-(((t - at) / (0.05 if v else 0.015)) ** 2))
        for at, v in zip(times, wide, strict=True)
    )
    return Record(
        name,
        database,
        rate,
        ("MLII",),
        np.asarray(mv, np.float32)[:, None],
        np.round(times * rate).astype(np.int64),
        np.where(wide, "V", "N"),
        np.array([0, round(40 * rate)]),
        ("(N", "(VT"),
        (),
    )


def test_windows_are_centred_on_the_beat() -> None:
    """A window's largest deflection of a normal beat is its R peak, at either rate of sampling."""
    for rate in (360.0, 128.0):
        own = beats.beats_of(record(rate=rate))
        assert own.windows.shape == (58, beats.SIZE)
        peak = np.abs(own.windows[own.classes == 0][:, 100:250]).argmax(axis=1) + 100
        assert np.abs(peak - beats.BEFORE).max() <= 2


def test_windows_beyond_the_ends_are_zero() -> None:
    """Where the recording has no samples the window holds zeros."""
    cut = beats.windows(np.ones(400, np.float32), np.array([0, 399]))
    assert cut[0, : beats.BEFORE].sum() == 0
    assert cut[0, beats.BEFORE :].all()
    assert cut[1, : beats.BEFORE + 1].all()
    assert cut[1, beats.BEFORE + 1 :].sum() == 0


def test_intervals_are_de_chazals_four() -> None:
    """RR before and after, the mean of ten and the mean of the record, in seconds."""
    rr = beats.intervals(np.arange(30) * 0.9)
    assert rr.shape == (30, len(beats.RR_NAMES))
    np.testing.assert_allclose(rr[10], 0.9, atol=0.01)
    assert beats.intervals(np.array([3.0])).shape == (1, 4)


def test_labels_leave_open_what_a_database_does_not_tell() -> None:
    """N of svdb may be N, L or R; the study's classes split V by the rhythm, where the rhythm is known."""
    mitdb, svdb = beats.beats_of(record()), beats.beats_of(record("svdb", "800"))
    normal, ventricular = mitdb.classes == 0, mitdb.classes == 4
    assert (svdb.open_labels[normal].sum(axis=1) == 3).all()
    assert (mitdb.open_labels.sum(axis=1) == 1).all()
    late = mitdb.time > 40
    np.testing.assert_array_equal(mitdb.vt, late & ventricular)
    study = study_cnn.labels(mitdb)
    assert study[ventricular & late, 5].all()
    assert not study[ventricular & late, 4].any()
    assert study[ventricular & ~late, 4].all()
    assert study_cnn.labels(svdb)[ventricular & ~late][:, 4:].all()


def test_drawing_keeps_to_its_limits() -> None:
    """No class gives more rows than its limit, and a small one gives all."""
    labels = np.repeat([0, 1, 2], [50, 3, 10])
    rows = beats.draw(labels, [5, 8, 0], np.random.default_rng(1))
    np.testing.assert_array_equal(np.bincount(labels[rows], minlength=3), [5, 3, 0])
    assert np.unique(rows).size == rows.size


def test_the_studys_network_has_its_parameters() -> None:
    """With six classes it has 6,213,602 parameters."""
    assert sum(p.numel() for p in study_cnn.StudyCnn().parameters()) == 6_213_602


def test_pictures_are_64_by_64_in_three_colours() -> None:
    """A spectrogram fills a picture of 64x64x3; slow waves light up its bottom, fast ones lie higher."""
    t = np.arange(beats.SIZE) / beats.RATE
    drawn = study_cnn.pictures(np.sin(2 * np.pi * np.array([[6.0], [30.0]]) * t).astype(np.float32))
    assert drawn.shape == (2, 64, 64)
    slow, fast = (int(picture.mean(axis=1).argmax()) for picture in drawn)
    assert fast < slow
    coloured = study_cnn.coloured(drawn)
    assert coloured.shape == (2, 3, 64, 64)
    assert 0 <= float(coloured.min()) < float(coloured.max()) <= 1


def test_the_studys_graph_says_what_the_network_says() -> None:
    """The ONNX graph gives the network's logits."""
    torch.manual_seed(1)
    network = study_cnn.StudyCnn()
    x = torch.rand(3, 3, 64, 64)
    session = ort.InferenceSession(study_cnn.to_onnx(network).SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"pictures": x.numpy()})[0], network(x).numpy(), atol=1e-5)


def test_the_other_networks_give_a_logit_a_class() -> None:
    """Residual and 1-D network map a batch to logits."""
    assert ResNet(8)(torch.rand(2, 3, 64, 64)).shape == (2, 8)
    assert Cnn1d(8)(torch.rand(2, 1, beats.SIZE)).shape == (2, 8)


def test_transfer_keeps_the_body() -> None:
    """A transferred network has the body of its source and a head of its own."""
    source = ResNet(5)
    own = transferred(source, 8)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(own.eval().body(x), source.eval().body(x))
    assert own.head.out_features == 8


def test_loss_counts_only_the_task_asked() -> None:
    """A row of one task is blind to the logits of the other, and an open label costs nothing among its own classes."""
    logits = torch.tensor([[2.0, 2.0, 50.0, -3.0]])
    asked = torch.tensor([[True, True, False, False]])
    both, one = asked, torch.tensor([[True, False, False, False]])
    assert loss(logits, both, asked, torch.ones(1)).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(logits, one, asked, torch.ones(1)).item() == pytest.approx(np.log(2), abs=1e-5)


def test_weights_lift_rare_labels() -> None:
    """At power 1 every label weighs the same in all, at 0 every row."""
    allowed = np.eye(2, dtype=bool)[np.repeat([0, 1], [9, 1])]
    weight = balanced(allowed, 1.0)
    assert weight[:9].sum() == pytest.approx(weight[9])
    np.testing.assert_array_equal(balanced(allowed, 0.0), np.ones(10))


@pytest.mark.parametrize("kind", ["study", "resnet", "cnn1d"])
def test_training_lowers_the_loss(kind: str) -> None:
    """Some epochs on two kinds of beat end with a lower loss, and with the right verdicts."""
    torch.manual_seed(3)
    own = beats.beats_of(record())
    own = beats.join([own, own])
    allowed = own.open_labels[:, [0, 4]]
    if kind == "cnn1d":
        network, x = Cnn1d(2), normalised(own.windows)
    else:
        network = ResNet(2) if kind == "resnet" else study_cnn.StudyCnn(2)
        x = study_cnn.coloured(study_cnn.pictures(own.windows))
    settings = SETTINGS | ({"rate": 1e-3, "cycle": False, "epochs": 3} if kind == "study" else {"epochs": 12})
    network, history = fit(network, lambda i: x[i], allowed, settings, 3)
    assert history[-1] < history[0]
    right = predict(network, lambda i: x[i], len(x)).argmax(axis=1) == allowed.argmax(axis=1)
    assert right.mean() > (0.78 if kind == "study" else 0.95)


def test_classical_features_tell_early_wide_beats() -> None:
    """The columns are as named, finite, and enough for the trees to tell N from V."""
    own = beats.beats_of(record())
    x = classical.features(own)
    assert x.shape == (58, len(classical.NAMES))
    assert np.isfinite(x).all()
    target = (own.classes == 4).astype(np.int64)
    model = classical.fit(x, target, 2, {"trees": 10, "leaves": 4, "rate": 0.3, "least": 2}, 1)
    assert (model.predict(x).argmax(axis=1) == target).all()


def test_scores_by_class() -> None:
    """Accuracy counts beats, mean sensitivity counts classes that occur."""
    score = by_class(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ("N", "V", "F"))
    assert score["accuracy"] == 75.0
    assert score["mean_sensitivity"] == pytest.approx(83.33)
    assert score["f1"] == {"N": 0.8, "V": pytest.approx(0.667), "F": 0.0}


def test_scores_by_record_follow_ec57() -> None:
    """The first five minutes and flutter don't count; F taken for V is no false positive."""
    times = np.array([10.0, 301.0, 302.0, 303.0, 304.0])
    truth = Truth("100", times, np.array([4, 0, 4, 5, 4]), np.array([2, 0, 2, 3, 2]), ((303.5, 305.0),))
    score = by_record([truth], [np.array([0, 0, 2, 2, 0])])
    assert score["veb"]["beats"] == 1
    assert score["veb"]["f1"] == 1.0
    assert bundle_branch([truth], [np.array([0, 1, 0, 0, 0])]) == {"L": 0.0, "R": 0.0}


@pytest.mark.data
def test_the_random_split_holds_no_beat_twice(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few records, training and test beats are disjoint, and the command writes figures for them."""
    monkeypatch.setattr(run, "names", lambda _dir, database: ["100", "208"] if database == "mitdb" else ["800"])
    config = run.tomllib.loads(run.CONFIG.read_text("utf-8"))
    split = run.Data(data_dir, config).random
    seen = set(zip(split.train.record.tolist(), split.train.time.tolist(), strict=True))
    assert not seen & set(zip(split.test.record.tolist(), split.test.time.tolist(), strict=True))
    out = tmp_path / "figures.json"
    small = tmp_path / "small.toml"
    small.write_text(run.CONFIG.read_text("utf-8").replace("trees = 150", "trees = 3"))
    run.main(
        [
            "--data",
            str(data_dir),
            "--config",
            str(small),
            "--out",
            str(out),
            "--models",
            "classical",
            "--tasks",
            "random",
        ]
    )
    assert json.loads(out.read_text())["beats"]["random"]["classical"]["accuracy"] > 80


def test_the_page_is_written_from_the_figures() -> None:
    """The committed page is what the committed figures give."""
    root = Path(__file__).parents[1]
    content = json.loads((root / "inference/models/baselines.json").read_text("utf-8"))
    assert (root / "docs/baselines.md").read_text("utf-8") == report.page(content)


def test_cost_is_measured_by_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark runs the study's network and says so when ours is not there."""
    path = Path(__file__).parents[1] / "benchmarks" / "peers" / "beat.py"
    spec = importlib.util.spec_from_file_location("beat", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["beat.py", "--rounds", "1", "--model", "nowhere.onnx"])
    module.main()
    told = capsys.readouterr().out
    assert "6,213,602 parameters" in told
    assert "us a beat" in told
