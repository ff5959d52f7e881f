"""The model contract: what goes into an ONNX file comes out again; what does not fit is refused with a clear line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.contract import KEY, Contract, ContractError, Image, check, from_json, to_json
from inference.runtime import BATCH, Model

onnx = pytest.importorskip("onnx")

IMAGE = Image(hop=8, window=64, bins=24, before=30, after=18, channels=("log", "difference"), scaling="asinh")
CONTRACT = Contract("beat", "1", 250, ("N", "V"), ("rr", "width"), (0.5, 1.0), (2.0, 3.0), 1.3, "ab" * 32, IMAGE)


def save(path: Path, contract: str | None) -> Path:
    """Write a model y = x W with `contract` in its metadata."""
    weights = np.random.default_rng(0).standard_normal((37, 19)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 37])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 19])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    if contract is not None:
        onnx.helper.set_model_props(model, {KEY: contract})
    onnx.save(model, str(path))
    return path


def test_round_trip() -> None:
    """A contract survives JSON, with and without an image, and equal contracts give equal text."""
    for contract in (CONTRACT, replace(CONTRACT, image=None), replace(CONTRACT, mean=(), scale=())):
        assert from_json(to_json(contract)) == contract
    assert to_json(CONTRACT) == to_json(replace(CONTRACT))
    assert IMAGE.shape == (2, 24, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 1"),
        ({"rate": "250"}, "'rate'"),
        ({"rate": True}, "'rate'"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"mean": [1.0]}, "2 features but 1 means"),
        ({"mean": ["a", "b"]}, "'mean'"),
        ({"temperature": 0.0}, "above 0"),
        ({"image": {"hop": 8}}, "lacks the field"),
        ({"image": 3}, "no object for Image"),
        ({"classes": "NV"}, "'classes'"),
    ],
)
def test_damaged_contract(change: dict[str, object], message: str) -> None:
    """Each kind of damage is refused with a line that names the field."""
    text = json.dumps({**json.loads(to_json(CONTRACT)), **change})
    with pytest.raises(ContractError, match=message):
        from_json(text)


@given(st.text() | st.sampled_from(["null", "[]", "3", "{", "[" * 100_000]))
def test_any_text_is_refused(text: str) -> None:
    """No text that isn't a contract gets through or raises anything else."""
    with pytest.raises(ContractError):
        from_json(text)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(CONTRACT, rate=360), "rate = 360"),
        (replace(CONTRACT, model="rhythm"), "model = 'rhythm'"),
        (replace(CONTRACT, classes=("V", "N")), "classes"),
        (replace(CONTRACT, image=replace(IMAGE, hop=4)), "hop=4"),
        (replace(CONTRACT, features=("rr", "height")), "height"),
        (replace(CONTRACT, features=("width", "rr")), "order"),
    ],
)
def test_unmet_contract(wanted: Contract, message: str) -> None:
    """What the caller can't meet is refused by name; what fits passes."""
    offer = {"model": "beat", "rate": 250, "classes": ("N", "V"), "features": ("rr", "width"), "image": IMAGE}
    check(CONTRACT, **offer)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=message):
        check(wanted, **offer)  # type: ignore[arg-type]


def test_model_files(tmp_path: Path) -> None:
    """A file that is missing, no model, or without a contract is refused; a good one gives its contract."""
    with pytest.raises(ContractError, match="no model at"):
        Model(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ContractError, match="no ONNX model"):
        Model(tmp_path / "bad.onnx")
    with pytest.raises(ContractError, match="holds no contract"):
        Model(save(tmp_path / "bare.onnx", None))
    model = Model(save(tmp_path / "good.onnx", to_json(CONTRACT)))
    assert model.contract == CONTRACT
    assert (model.inputs, model.outputs) == (("x",), ("y",))


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Any cut of the rows into calls gives the same bits, single rows and none included."""
    model = Model(save(tmp_path / "m.onnx", to_json(CONTRACT)))
    x = np.random.default_rng(1).standard_normal((2 * BATCH + 5, 37)).astype(np.float32)
    (whole,) = model.run(x)
    assert whole.shape == (len(x), 19)
    for size in (1, 2, 3, 7, BATCH - 1, BATCH + 1):
        cut = np.concatenate([model.run(x[at : at + size])[0] for at in range(0, len(x), size)])
        assert np.array_equal(cut, whole)
    assert model.run(x[:0])[0].shape == (0, 19)


def test_wrong_inputs(tmp_path: Path) -> None:
    """Too many arrays, or of different lengths, are an error of the caller."""
    model = Model(save(tmp_path / "m.onnx", to_json(CONTRACT)))
    with pytest.raises(ValueError, match="equal numbers of rows"):
        model.run(np.zeros((2, 37), np.float32), np.zeros((2, 37), np.float32))
