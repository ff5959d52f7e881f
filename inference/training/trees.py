"""Boosted trees: fitted by LightGBM, written as an ONNX tree ensemble with a contract.

LightGBM compares doubles with ``<=``; features are float32, so a threshold rounded down to float32 parts the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from inference.contract import KEY, Contract, to_json

OPSET: Final = 17
ML_OPSET: Final = 3
BINS: Final = 127


def fit(
    features: NDArray[np.float32],
    labels: NDArray[np.bool_] | NDArray[np.int64],
    weights: NDArray[np.float64],
    settings: dict[str, Any],
    seed: int,
) -> lgb.Booster:
    """Fit a classifier, binary or of several classes.

    Parameters
    ----------
    features : ndarray of float32, shape (m, k)
    labels : ndarray of bool or int64, shape (m,)
        Numbers of classes where there are several.
    weights : ndarray of float64, shape (m,)
        Of rows; scaled here to a mean of 1.
    settings : dict
        ``trees``, ``leaves``, ``rate``, ``feature_fraction``, ``least`` (rows in a leaf), ``l2``, and optionally
        ``threads`` and ``classes`` (their number; binary without it).
    seed : int

    Returns
    -------
    lightgbm.Booster
        The same for the same arguments.
    """
    parameters = {
        "objective": "binary",
        "learning_rate": settings["rate"],
        "num_leaves": settings["leaves"],
        "feature_fraction": settings["feature_fraction"],
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "min_data_in_leaf": settings["least"],
        "lambda_l2": settings["l2"],
        "num_threads": settings.get("threads", 1),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    if settings.get("classes", 0):
        parameters |= {"objective": "multiclass", "num_class": settings["classes"]}
    data = lgb.Dataset(features, labels, weight=weights / weights.mean(), params={"max_bin": BINS, "verbose": -1})
    return lgb.train(parameters, data, settings["trees"])


def predict(boosters: Sequence[lgb.Booster], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability by the mean of the boosters' logits.

    Parameters
    ----------
    boosters : sequence of lightgbm.Booster
        Binary classifiers.
    features : ndarray of float32, shape (m, k)

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    if not len(features):
        return np.zeros(0)
    logits = [np.asarray(booster.predict(features, raw_score=True, num_threads=1), np.float64) for booster in boosters]
    return np.asarray(1.0 / (1.0 + np.exp(-np.mean(logits, axis=0))), np.float64)


def save(path: Path, boosters: Sequence[lgb.Booster], contract: Contract) -> None:
    """Write boosters as one ONNX graph from ``features`` (rows, k) to ``probability`` (rows, classes; 1 where binary).

    Parameters
    ----------
    path : Path
        File to write.
    boosters : sequence of lightgbm.Booster
        Of the same classes; their logits are averaged.
    contract : Contract
        Goes into the metadata.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "feature", "value", "mode", "true", "false")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "weight")}
    trees = [info for booster in boosters for info in booster.dump_model()["tree_info"]]
    targets = boosters[0].num_model_per_iteration()
    for tree, info in enumerate(trees):
        for number, node, below in _numbered(info["tree_structure"]):
            columns["tree"].append(tree)
            columns["node"].append(number)
            inner = "split_feature" in node
            columns["feature"].append(node["split_feature"] if inner else 0)
            columns["value"].append(_rounded_down(node["threshold"]) if inner else 0.0)
            columns["mode"].append("BRANCH_LEQ" if inner else "LEAF")
            columns["true"].append(below[0])
            columns["false"].append(below[1])
            if not inner:
                leaves["tree"].append(tree)
                leaves["node"].append(number)
                leaves["weight"].append(float(node["leaf_value"]) / len(boosters))
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["logit"],
        domain="ai.onnx.ml",
        n_targets=targets,
        post_transform="NONE",
        nodes_treeids=columns["tree"],
        nodes_nodeids=columns["node"],
        nodes_featureids=columns["feature"],
        nodes_values=columns["value"],
        nodes_modes=columns["mode"],
        nodes_truenodeids=columns["true"],
        nodes_falsenodeids=columns["false"],
        target_treeids=leaves["tree"],
        target_nodeids=leaves["node"],
        target_ids=[tree % targets for tree in leaves["tree"]],
        target_weights=leaves["weight"],
    )
    graph = helper.make_graph(
        [ensemble, helper.make_node("Sigmoid" if targets == 1 else "Softmax", ["logit"], ["probability"])],
        contract.model,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(contract.features)])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", targets])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {KEY: to_json(contract)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _numbered(root: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], tuple[int, int]]]:
    """Nodes of a tree in order of discovery, each with its number and those of its children (0, 0 for a leaf)."""
    waiting = [root]
    at = 0
    while at < len(waiting):
        node = waiting[at]
        below = (0, 0)
        if "split_feature" in node:
            below = (len(waiting), len(waiting) + 1)
            waiting += [node["left_child"], node["right_child"]]
        yield at, node, below
        at += 1


def _rounded_down(threshold: float) -> float:
    value = np.float32(threshold)
    return float(np.nextafter(value, np.float32(-np.inf)) if float(value) > threshold else value)
