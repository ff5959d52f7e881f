"""The QRS detector's weights: stored as an ONNX graph with its contract, read as arrays for the kernel of `dsp.qrs`.

The kernel runs the networks itself, one candidate at a time; the graph says the same to any other runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dsp.layout import FS
from dsp.qrs import QrsWeights
from dsp.qrs_features import FIRST_NAMES, SECOND_NAMES
from inference.contract import KEY, Contract, ContractError, check, from_json, to_json
from inference.shipped import shipped

NAMES: Final = ("w1", "b1", "w2", "b2", "w3", "b3")
CLASSES: Final = ("beat",)
OPSET: Final = 17
FILE: Final = "qrs.onnx"


def load(path: Path | None = None) -> QrsWeights:
    """Read a model and check that its contract is the one that `dsp.qrs` meets.

    Parameters
    ----------
    path : Path, optional
        ONNX file; the shipped one without it.

    Returns
    -------
    QrsWeights

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ContractError
        If the file is no model of the QRS detector, or one for other features or another rate.
    """
    path = shipped() / FILE if path is None else path
    if not path.exists():
        msg = f"no QRS model at {path}; reinstall, or train one: rhythmwatch train qrs"
        raise FileNotFoundError(msg)
    model = onnx.load(str(path))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in metadata:
        msg = f"{path} carries no contract; export the model again"
        raise ContractError(msg)
    contract = from_json(metadata[KEY])
    check(contract, model="qrs", rate=FS, classes=CLASSES, features=(*FIRST_NAMES, *SECOND_NAMES))
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    try:
        first, second = (
            tuple(np.ascontiguousarray(arrays[f"{net}.{name}"], np.float32) for name in NAMES)
            for net in ("first", "second")
        )
        return QrsWeights(first, second, float(arrays["threshold"][0]))
    except (KeyError, ValueError) as error:
        msg = f"{path} has not the weights of the QRS detector ({error}); export the model again"
        raise ContractError(msg) from error


def save(path: Path, weights: QrsWeights, *, version: str, training: str) -> None:
    """Write weights as an ONNX graph: inputs ``first`` and ``second`` (rows), outputs their logits and the decision.

    Parameters
    ----------
    path : Path
        File to write.
    weights : QrsWeights
        What to store.
    version : str
        Version of the model.
    training : str
        Hash of the training records (`inference.training.splits.training_hash`).
    """
    nodes, initializers = [], [_tensor("threshold", np.array([weights.threshold], np.float32))]
    for net, layers in (("first", weights.first), ("second", weights.second)):
        initializers += [_tensor(f"{net}.{name}", layer) for name, layer in zip(NAMES, layers, strict=True)]
        nodes += [
            helper.make_node("Gemm", [net, f"{net}.w1", f"{net}.b1"], [f"{net}.g1"]),
            helper.make_node("Relu", [f"{net}.g1"], [f"{net}.h1"]),
            helper.make_node("Gemm", [f"{net}.h1", f"{net}.w2", f"{net}.b2"], [f"{net}.g2"]),
            helper.make_node("Relu", [f"{net}.g2"], [f"{net}.h2"]),
            helper.make_node("Gemm", [f"{net}.h2", f"{net}.w3", f"{net}.b3"], [f"{net}.logit"]),
        ]
    nodes.append(helper.make_node("GreaterOrEqual", ["second.logit", "threshold"], ["accepted"]))
    inputs = [
        helper.make_tensor_value_info("first", TensorProto.FLOAT, ["candidates", len(FIRST_NAMES)]),
        helper.make_tensor_value_info("second", TensorProto.FLOAT, ["candidates", len(SECOND_NAMES)]),
    ]
    outputs = [
        helper.make_tensor_value_info("first.logit", TensorProto.FLOAT, ["candidates", 1]),
        helper.make_tensor_value_info("second.logit", TensorProto.FLOAT, ["candidates", 1]),
        helper.make_tensor_value_info("accepted", TensorProto.BOOL, ["candidates", 1]),
    ]
    graph = helper.make_graph(nodes, "qrs", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    contract = Contract(
        model="qrs",
        version=version,
        rate=FS,
        classes=CLASSES,
        features=(*FIRST_NAMES, *SECOND_NAMES),
        training=training,
    )
    helper.set_model_props(model, {KEY: to_json(contract)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _tensor(name: str, array: NDArray[np.float32]) -> TensorProto:
    return numpy_helper.from_array(array, name)
