"""Trees walked here give what the engine gives, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from inference.forest import Forest, _ask, speaks
from inference.runtime import Model
from inference.shipped import shipped

SHIPPED = ("af", "beat", "recording", "rhythm")


def forest_of(name: str) -> tuple[Any, Any]:
    """Give a shipped graph and its trees."""
    model = onnx.load(str(shipped() / f"{name}.onnx"))
    (node,) = (node for node in model.graph.node if speaks(node))
    return model, node


def engine(model: Any) -> Any:
    """Open a session as the plain engine."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def rows_of(node: Any, m: int, width: int, seed: int) -> np.ndarray:
    """Make rows of which many values lie on a threshold, some are missing and some without bound."""
    rng = np.random.default_rng(seed)
    told = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    rows = rng.standard_normal((m, width)).astype(np.float32)
    for at in rng.integers(0, len(told["nodes_values"]), 40 * m):
        rows[rng.integers(m), told["nodes_featureids"][at]] = told["nodes_values"][at]
    rows[rng.random(rows.shape) < 0.05] = np.nan
    rows[rng.random(rows.shape) < 0.02] = np.inf
    return rows


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("m", [1, 2, 7, 64, 200])
def test_trees_give_the_bits_of_the_engine(name: str, m: int) -> None:
    model, node = forest_of(name)
    width = next(item for item in model.graph.input if item.name == node.input[0]).type.tensor_type.shape.dim[1]
    rows = rows_of(node, m, width.dim_value, seed=m)
    inputs = [item for item in model.graph.input if item.name == node.input[0]]
    output = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "trees", inputs, [output]),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    (expected,) = engine(alone).run(None, {node.input[0]: rows})
    forest = Forest(node)
    given = forest.run(rows)
    assert given.shape == (m, forest.width)
    np.testing.assert_array_equal(given.view(np.uint32), expected.reshape(given.shape).view(np.uint32))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_gives_the_bits_of_the_whole_graph(name: str) -> None:
    model, _ = forest_of(name)
    session, rng = engine(model), np.random.default_rng(1)
    columns = []
    for item in model.graph.input:
        shape = (64, *(part.dim_value for part in item.type.tensor_type.shape.dim[1:]))
        columns.append(rng.standard_normal(shape).astype(np.float32))
    ours = Model(shipped() / f"{name}.onnx")
    expected = session.run(None, dict(zip(ours.inputs, columns, strict=True)))
    assert ours.outputs == tuple(item.name for item in session.get_outputs())
    for mine, theirs in zip(ours.run(*columns), expected, strict=True):
        np.testing.assert_array_equal(mine.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("post_transform", "LOGISTIC"),
        ("aggregate_function", "AVERAGE"),
        ("base_values", [0.5]),
        ("nodes_values", [np.inf]),
    ],
)
def test_what_is_not_spoken_is_left_to_the_engine(name: str, value: Any) -> None:
    _, node = forest_of("af")
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)
    node.attribute.append(onnx.helper.make_attribute(name, value))
    assert not speaks(node)


def test_kernel_and_plain_twin_agree() -> None:
    _, node = forest_of("af")
    rows = rows_of(node, 5, 45, seed=3)
    forest = Forest(node)
    plain = np.zeros((5, forest.width), np.float32)
    with np.errstate(over="ignore"):
        _ask.py_func(rows, *forest._conditions, *forest._leaves, plain)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(plain, forest.run(rows))


def test_rows_of_too_few_features_are_refused() -> None:
    _, node = forest_of("af")
    with pytest.raises(ValueError, match="features a row"):
        Forest(node).run(np.zeros((3, 7), np.float32))
