"""The beat model: rows of `inference.features` in, calibrated probabilities of eight classes out.

A network reads the image and the features, boosted trees read the features; one ONNX graph runs both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel
from dsp.layout import FS
from inference import features_image
from inference.contract import Contract, check
from inference.explain import Explainer, maps, pack
from inference.features import NAMES, Rows
from inference.runtime import Model
from inference.shipped import shipped

CLASSES: Final = ("N", "L", "R", "A", "V", "F", "/", "Q")
"""Beat classes by MIT code, in the order of the outputs."""


TREE_OF_CLASS: Final = (0, 0, 0, 1, 2, 0, -1, -1)
"""Output of the trees that speaks for each class; paced and unclassifiable ones are the network's alone."""

SHARE: Final = 0.5
"""Weight of the trees."""

FILE: Final = "beat.onnx"

_TREE_OF_CLASS: Final = np.array(TREE_OF_CLASS, np.int64)


@dataclass(frozen=True, slots=True)
class BeatModel:
    """A loaded beat model; build it with `load`, once a process, and share it.

    Attributes
    ----------
    model : Model
        The ONNX graph: logits of the network and scores of the boosted trees.
    explainer : Explainer
        The same graph with its inner tensors as outputs.
    """

    model: Model
    explainer: Explainer

    @property
    def contract(self) -> Contract:
        """Contract of the model."""
        return self.model.contract

    @classmethod
    def load(cls, folder: Path | None = None) -> BeatModel:
        """Read a model and check that its rows are what `inference.features` makes.

        Parameters
        ----------
        folder : Path, optional
            Folder that holds `FILE`; the shipped one without it.

        Returns
        -------
        BeatModel

        Raises
        ------
        inference.contract.ContractError
            The file is missing, damaged, or made for other rows.
        """
        path = (folder or shipped()) / FILE
        model = Model(path)
        check(model.contract, model="beat", rate=FS, classes=CLASSES, features=NAMES, image=features_image.CONTRACT)
        return cls(model, Explainer.load(path))

    def classify(self, rows: Rows) -> NDArray[np.float32]:
        """Classify beats.

        Parameters
        ----------
        rows : Rows
            Of any number of patients.

        Returns
        -------
        ndarray of float32, shape (m, 8)
            Calibrated probability of each of `CLASSES`; rows sum to 1. A row's bits don't depend on the other rows.
        """
        logits, trees = self.model.run(rows.features, rows.images.transpose(0, 1, 3, 2))
        return probabilities(mix(logits, trees), self.contract.temperature)

    def explain(self, rows: Rows, *, normal: bool = False) -> tuple[NDArray[np.float32], list[bytes]]:
        """Classify beats and say in the same run which parts of their images made the verdict.

        Parameters
        ----------
        rows : Rows
            Of any number of patients.
        normal : bool
            Make the maps of normal beats too.

        Returns
        -------
        probabilities : ndarray of float32, shape (m, 8)
            The same bits as from `classify`.
        maps : list of bytes
            A map each (`inference.explain.pack`) of the likeliest class over the second; empty for a beat without.
        """
        images = rows.images.transpose(0, 1, 3, 2)
        logits, trees, activation, joined, hidden = self.explainer.model.run(rows.features, images)
        p = probabilities(mix(logits, trees), self.contract.temperature)
        order = np.argsort(-p, axis=1, kind="stable")[:, :2]
        chosen = np.arange(len(p)) if normal else np.flatnonzero(order[:, 0] != 0)
        packed = [b""] * len(p)
        if chosen.size:
            inner = (activation[chosen], joined[chosen], hidden[chosen])
            made = pack(*maps(*inner, self.explainer.weights, order[chosen, 0], order[chosen, 1]))
            for at, item in zip(chosen.tolist(), made, strict=True):
                packed[at] = item
        return p, packed


@kernel
def _mix(logits: Any, trees: Any, group: Any, out: Any) -> None:
    groups = trees.shape[1]
    mine = np.empty(groups)
    for i in range(logits.shape[0]):
        peak, total = np.float64(logits[i, 0]), 0.0
        for c in range(logits.shape[1]):
            peak = max(peak, np.float64(logits[i, c]))
        for c in range(logits.shape[1]):
            total += math.exp(logits[i, c] - peak)
        norm = peak + math.log(total)
        mine[:] = 1e-12
        for c in range(logits.shape[1]):
            out[i, c] = logits[i, c] - norm
            if group[c] >= 0:
                mine[group[c]] += math.exp(out[i, c])
        peak, total = np.float64(trees[i, 0]), 0.0
        for g in range(groups):
            peak = max(peak, np.float64(trees[i, g]))
        for g in range(groups):
            total += math.exp(trees[i, g] - peak)
        norm, known = peak + math.log(total), 0.0
        for g in range(groups):
            known += mine[g]
        for c in range(logits.shape[1]):
            if group[c] >= 0:
                out[i, c] += SHARE * (trees[i, group[c]] - norm - math.log(mine[group[c]] / known))


def mix(logits: NDArray[np.float32], trees: NDArray[np.float32]) -> NDArray[np.float64]:
    """Move the network's verdict among N, S and V halfway to that of the trees: a geometric mean of the two.

    Compiled row by row: the engine's own exponential rounds differently at the end of an array, so that a row's bits
    would depend on its place in the batch.

    Parameters
    ----------
    logits : ndarray of float32, shape (m, 8)
        The network's.
    trees : ndarray of float32, shape (m, 3)
        Raw scores of the trees for N (with F), S and V.

    Returns
    -------
    ndarray of float64, shape (m, 8)
        Logits. Within N the network's proportions stay, and so do paced and unclassifiable ones.
    """
    out = np.empty(logits.shape)
    _mix(logits, trees, _TREE_OF_CLASS, out)
    return out


@kernel
def _softmax(logits: Any, temperature: float, out: Any) -> None:
    for i in range(logits.shape[0]):
        peak, total = logits[i, 0], 0.0
        for c in range(logits.shape[1]):
            peak = max(peak, logits[i, c])
        for c in range(logits.shape[1]):
            total += math.exp((logits[i, c] - peak) / temperature)
        for c in range(logits.shape[1]):
            out[i, c] = math.exp((logits[i, c] - peak) / temperature) / total


def probabilities(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float32]:
    """Softmax of ``logits / temperature``, row by row.

    Parameters
    ----------
    logits : ndarray of float64, shape (m, classes)
    temperature : float
        Above 1: less sure (Guo et al. 2017, "On calibration of modern neural networks").

    Returns
    -------
    ndarray of float32, shape (m, classes)
    """
    out = np.empty(logits.shape, np.float32)
    _softmax(logits, temperature, out)
    return out
