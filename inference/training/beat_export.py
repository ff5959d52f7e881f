"""Write the network and the trees as one ONNX graph, so that one call of the engine runs both."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from dsp.spectrogram import BINS
from inference.beats import SHARE
from inference.contract import KEY, Contract, to_json
from inference.features_image import CHANNELS, COLUMNS
from inference.training.beat_fit import TREE_CLASSES
from inference.training.beat_network import BeatNetwork

OPSET: Final = 17
ML_OPSET: Final = 3


def save(path: Path, network: BeatNetwork, booster: lgb.Booster, bias: NDArray[np.float64], contract: Contract) -> None:
    """Write a graph from ``features`` (m, k) and ``images`` (m, channels, columns, bins) to ``logits`` and ``trees``.

    Parameters
    ----------
    path : Path
        File to write.
    network : BeatNetwork
    booster : lightgbm.Booster
        From `inference.training.beat_fit.fit_trees`.
    bias : ndarray of float64, shape (8,)
        Goes onto the mixed logits, the step from the proportions of training to those of patients. It lies in the
        network's last layer, as the mix takes only a part of that.
    contract : Contract
        Goes into the metadata.
    """
    network = _folded(copy.deepcopy(network))
    with torch.no_grad():
        network.last.bias.add_(torch.from_numpy(bias / (1 - SHARE)).float())
    example = (torch.zeros(2, len(contract.features)), torch.zeros(2, CHANNELS, COLUMNS, BINS))
    buffer: Any = io.BytesIO()
    names = ("features", "images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            example,
            buffer,
            input_names=list(names),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows"} for name in (*names, "logits")},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.graph.node.append(_ensemble(booster))
    model.graph.output.append(helper.make_tensor_value_info("trees", TensorProto.FLOAT, ["rows", TREE_CLASSES]))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    model.ir_version = 8
    helper.set_model_props(model, {KEY: to_json(contract)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _folded(network: BeatNetwork) -> BeatNetwork:
    """Move the normalisation of the image into the first convolution, where no padding keeps the two apart.

    The engine folds only what stands behind a convolution; a pass over the whole image costs as much as a layer.
    """
    norm, first = network.image[0], network.image[1]
    if not (isinstance(norm, nn.BatchNorm2d) and isinstance(first, nn.Conv2d)) or first.padding != (0, 0):
        return network
    if norm.running_var is None or norm.running_mean is None:
        return network
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - gain * norm.running_mean
        plain = nn.Conv2d(first.in_channels, first.out_channels, first.kernel_size, first.stride)  # type: ignore[arg-type]
        plain.weight.copy_(first.weight * gain[None, :, None, None])
        plain.bias.copy_((first.weight * shift[None, :, None, None]).sum(dim=(1, 2, 3)))  # type: ignore[union-attr]
    network.image[0], network.image[1] = nn.Identity(), plain
    return network


def _ensemble(booster: lgb.Booster) -> Any:
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree, info in enumerate(booster.dump_model()["tree_info"]):
        waiting = [info["tree_structure"]]
        for number in range(10**6):
            if number == len(waiting):
                break
            node = waiting[number]
            inner = "split_feature" in node
            below = (len(waiting), len(waiting) + 1) if inner else (0, 0)
            if inner:
                waiting += [node["left_child"], node["right_child"]]
            else:
                leaves["treeids"].append(tree)
                leaves["nodeids"].append(number)
                leaves["ids"].append(tree % TREE_CLASSES)
                leaves["weights"].append(float(node["leaf_value"]))
            nodes["treeids"].append(tree)
            nodes["nodeids"].append(number)
            nodes["featureids"].append(node["split_feature"] if inner else 0)
            nodes["values"].append(rounded_down(node["threshold"]) if inner else 0.0)
            nodes["modes"].append("BRANCH_LEQ" if inner else "LEAF")
            nodes["truenodeids"].append(below[0])
            nodes["falsenodeids"].append(below[1])
    attributes: dict[str, Any] = {f"nodes_{name}": values for name, values in nodes.items()}
    attributes |= {f"target_{name}": values for name, values in leaves.items()}
    attributes |= {"n_targets": TREE_CLASSES, "post_transform": "NONE"}
    return helper.make_node("TreeEnsembleRegressor", ["features"], ["trees"], domain="ai.onnx.ml", **attributes)


def rounded_down(threshold: float) -> float:
    """Largest float32 that is not above a double: float32 features fall on the same side of both."""
    value = np.float32(threshold)
    return float(np.nextafter(value, np.float32(-np.inf)) if float(value) > threshold else value)
