"""Write the network and the trees as one ONNX graph, so that one call of the engine gives the combined verdict."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import nn

from dsp.spectrogram import BINS
from inference.contract import KEY, Contract, to_json
from inference.features_image import CHANNELS, COLUMNS
from inference.training.beat_fit import TREE_CLASSES
from inference.training.beat_network import BeatNetwork
from inference.training.records import CLASSES

OPSET: Final = 17
ML_OPSET: Final = 3

TREE_OF_CLASS: Final = (0, 0, 0, 1, 2, 0, -1, -1)
"""Output of the trees that speaks for each class; paced and unclassifiable ones are the network's alone."""


def combine(logits: torch.Tensor, trees: torch.Tensor, share: float, bias: torch.Tensor) -> torch.Tensor:
    """Move the network's verdict among N, S and V towards that of the trees: a geometric mean of the two.

    Within a group the network's proportions stay.

    Parameters
    ----------
    logits : Tensor of float32, shape (m, 8)
        The network's.
    trees : Tensor of float32, shape (m, 3)
        The trees' for N with F, S, V.
    share : float
        Weight of the trees, 0 to 1.
    bias : Tensor of float32, shape (8,)
        Added: the step from the proportions of training to those of patients.

    Returns
    -------
    Tensor of float32, shape (m, 8)
        Logits.
    """
    log_p = torch.log_softmax(logits, dim=1)
    log_t = torch.log_softmax(trees, dim=1)
    # N, L, R and F make one group; S and V are single. Logarithm of a sum of exponentials, with no mask to index by.
    usual = torch.log(torch.exp(log_p[:, 0:1]) + torch.exp(log_p[:, 1:2]) + torch.exp(log_p[:, 2:3])
                      + torch.exp(log_p[:, 5:6]) + 1e-12)  # fmt: skip
    step = share * (log_t - torch.cat([usual, log_p[:, 3:5]], dim=1))
    none = torch.zeros_like(step[:, 0:2])
    steps = torch.cat([step[:, 0:1], step[:, 0:1], step[:, 0:1], step[:, 1:3], step[:, 0:1], none], dim=1)
    return log_p + steps + bias


class _Combined(nn.Module):
    bias: torch.Tensor

    def __init__(self, network: BeatNetwork, share: float, bias: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.share = share
        self.register_buffer("bias", bias)

    def forward(self, features: torch.Tensor, images: torch.Tensor, trees: torch.Tensor) -> torch.Tensor:
        return combine(self.network(features, images), trees, self.share, self.bias)


def save(
    path: Path, network: BeatNetwork, booster: lgb.Booster, share: float, bias: NDArray[np.float32], contract: Contract
) -> None:
    """Write a graph from ``features`` (m, k) and ``images`` (m, channels, columns, bins) to ``logits`` (m, 8).

    Parameters
    ----------
    path : Path
        File to write.
    network : BeatNetwork
    booster : lightgbm.Booster
        From `inference.training.beat_fit.fit_trees`.
    share, bias
        See `combine`.
    contract : Contract
        Goes into the metadata.
    """
    count = len(contract.features)
    example = (torch.zeros(2, count), torch.zeros(2, CHANNELS, COLUMNS, BINS), torch.zeros(2, TREE_CLASSES))
    buffer: Any = io.BytesIO()
    combined = _Combined(network, share, torch.from_numpy(bias)).eval()
    names = ("features", "images", "trees")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            combined,
            example,
            buffer,
            input_names=list(names),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows"} for name in (*names, "logits")},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    kept = [item for item in model.graph.input if item.name != "trees"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.node.insert(0, _ensemble(booster))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    model.ir_version = 8
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(CLASSES)
    helper.set_model_props(model, {KEY: to_json(contract)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


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
