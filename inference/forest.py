"""The trees of an ONNX graph, asked for many rows at once: bit for bit what the engine gives, for a third of its time.

The engine takes one row through one tree after the other, and each step waits for the one before. Here nothing is
walked (QuickScorer: Lucchese et al., SIGIR 2015). The leaves of a tree are bits, numbered from the left. A condition
that fails for a row takes the leaves below its true side away; what is left lowest once all conditions were looked at
is the leaf that a walk would have reached. The conditions of all trees are looked at in the order of their
thresholds, for `ABREAST` rows at a time, up to the first that holds for all of them. The sums are made in single
precision in the order of the trees, as the engine makes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from dsp.kernel import kernel

OPERATOR: Final = "TreeEnsembleRegressor"
LEAVES: Final = 32
"""Most that a tree may have: the bits of a word."""
ABREAST: Final = 16
_ALL: Final = np.uint32(0xFFFFFFFF)
_HASH: Final = np.uint32(0x077CB531)
"""A de Bruijn sequence: multiplied by a single bit, its highest five bits differ for each."""
_SHIFT: Final = np.uint32(27)
_SPOKEN: Final = {"post_transform": b"NONE", "aggregate_function": b"SUM"}


class Forest:
    """Trees with single outcomes in their leaves.

    Parameters
    ----------
    node : onnx.NodeProto
        A `OPERATOR` that `speaks` approves of.

    Attributes
    ----------
    reads, gives : str
        Names of the tensors.
    width : int
        Columns of the result.
    """

    __slots__ = ("_conditions", "_leaves", "gives", "reads", "width")

    def __init__(self, node: Any) -> None:
        told = _attributes(node)
        self.reads, self.gives, self.width = str(node.input[0]), str(node.output[0]), int(told["n_targets"])
        graph = _Graph(told)
        trees = sorted(set(told["nodes_treeids"]))
        targets = np.zeros(len(trees), np.int64)
        values = np.zeros((len(trees), LEAVES), np.float32)
        conditions: list[tuple[int, float, int, int]] = []
        for number, tree in enumerate(trees):
            leaves: list[tuple[int, float]] = []
            graph.take(tree, 0, leaves, conditions, number)
            targets[number] = leaves[0][0]
            values[number, [_place(leaf) for leaf in range(len(leaves))]] = [value for _, value in leaves]
        features, thresholds, owners, kept = zip(*sorted(conditions), strict=True)
        # Conditions of feature f are those from begins[f] to begins[f + 1].
        begins = np.searchsorted(features, np.arange(max(features) + 2)).astype(np.int32)
        self._conditions = (
            begins, np.array(thresholds, np.float32), np.array(owners, np.int32), np.array(kept, np.uint32),
        )  # fmt: skip
        self._leaves = targets, values

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add up what the trees say.

        Parameters
        ----------
        rows : ndarray of float32, shape (m, features)
            NaN is above every threshold.

        Returns
        -------
        ndarray of float32, shape (m, width)

        Raises
        ------
        ValueError
            Rows of too few features.
        """
        known = len(self._conditions[0]) - 1
        if rows.ndim != 2 or rows.shape[1] < known:
            raise ValueError(f"the trees ask for {known} features a row, got an array of {rows.shape}")
        out = np.zeros((len(rows), self.width), np.float32)
        _ask(np.ascontiguousarray(rows, np.float32), *self._conditions, *self._leaves, out)
        return out


def speaks(node: Any) -> bool:
    """Whether a node of a graph is a forest as `Forest` knows them."""
    if node.op_type != OPERATOR:
        return False
    told = _attributes(node)
    leaves = list(zip(told["target_treeids"], told["target_nodeids"], strict=True))
    of_tree = set(zip(told["target_treeids"], told["target_ids"], strict=True))
    return (
        all(told.get(name, value) == value for name, value in _SPOKEN.items())
        and not told.get("base_values")
        and not any(told.get("nodes_missing_value_tracks_true", ()))
        and set(told["nodes_modes"]) == {b"LEAF", b"BRANCH_LEQ"}
        and all(map(math.isfinite, told["nodes_values"]))
        and len(set(leaves)) == len(leaves) == told["nodes_modes"].count(b"LEAF")
        and len(of_tree) == len(set(told["nodes_treeids"]))
        and max(Counter(tree for tree, _ in leaves).values()) <= LEAVES
    )


def _attributes(node: Any) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _place(leaf: int) -> int:
    """Where the kernel looks for the value of a leaf."""
    return int(((1 << leaf) * int(_HASH) & int(_ALL)) >> int(_SHIFT))


class _Graph:
    """The columns of a node, found by tree and number."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        nodes = zip(told["nodes_treeids"], told["nodes_nodeids"], strict=True)
        leaves = zip(told["target_treeids"], told["target_nodeids"], strict=True)
        self._nodes = {node: at for at, node in enumerate(nodes)}
        self._leaves = dict(zip(leaves, zip(told["target_ids"], told["target_weights"], strict=True), strict=True))

    def take(
        self,
        tree: int,
        number: int,
        leaves: list[tuple[int, float]],
        conditions: list[tuple[int, float, int, int]],
        owner: int,
    ) -> int:
        """Take a node in with all below it; returns their leaves as bits."""
        at, told = self._nodes[tree, number], self._told
        if told["nodes_modes"][at] == b"LEAF":
            leaves.append(self._leaves[tree, number])
            return 1 << (len(leaves) - 1)
        true = self.take(tree, told["nodes_truenodeids"][at], leaves, conditions, owner)
        conditions.append((told["nodes_featureids"][at], told["nodes_values"][at], owner, int(_ALL) & ~true))
        return true | self.take(tree, told["nodes_falsenodeids"][at], leaves, conditions, owner)


@kernel
def _ask(
    rows: Any, begins: Any, thresholds: Any, owners: Any, kept: Any, targets: Any, values: Any, out: Any,
) -> None:  # fmt: skip
    trees, width = values.shape[0], out.shape[1]
    left = np.empty((trees, ABREAST), np.uint32)
    column = np.empty(ABREAST, np.float32)
    sums = np.empty((width, ABREAST), np.float32)
    for first in range(0, rows.shape[0], ABREAST):
        count = min(ABREAST, rows.shape[0] - first)
        left[:] = _ALL
        for feature in range(begins.size - 1):
            column[:] = -np.inf
            most = np.float32(-np.inf)
            for i in range(count):
                value = rows[first + i, feature]
                if not value <= np.float32(np.inf):
                    value = np.float32(np.inf)
                column[i] = value
                most = max(most, value)
            for at in range(begins[feature], begins[feature + 1]):
                threshold = thresholds[at]
                if threshold >= most:
                    break
                mine, stay = left[owners[at]], kept[at]
                for i in range(ABREAST):
                    mine[i] &= stay if column[i] > threshold else _ALL
        sums[:] = 0.0
        for tree in range(trees):
            mine, sum_of, value_of = left[tree], sums[targets[tree]], values[tree]
            for i in range(ABREAST):
                lowest = np.uint32(mine[i] & np.uint32(~mine[i] + np.uint32(1)))
                sum_of[i] += value_of[np.uint32(lowest * _HASH) >> _SHIFT]
        for i in range(count):
            for target in range(width):
                out[first + i, target] = sums[target, i]
