"""The beat model: rows of `inference.features` in, calibrated probabilities of eight classes out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import FS
from inference import features_image
from inference.contract import Contract, check
from inference.features import NAMES, Rows
from inference.runtime import Model

CLASSES: Final = ("N", "L", "R", "A", "V", "F", "/", "Q")
"""Beat classes by MIT code, in the order of the outputs."""


FILE: Final = "beat.onnx"


def shipped() -> Path:
    """Folder of the models that come with the package."""
    return Path(str(resources.files("inference"))) / "models"


@dataclass(frozen=True, slots=True)
class BeatModel:
    """A loaded beat model; build it with `load`, once a process, and share it.

    Attributes
    ----------
    model : Model
        The ONNX graph: network and boosted trees, combined.
    """

    model: Model

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
        model = Model((folder or shipped()) / FILE)
        check(model.contract, model="beat", rate=FS, classes=CLASSES, features=NAMES, image=features_image.CONTRACT)
        return cls(model)

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
        (logits,) = self.model.run(rows.features, rows.images.transpose(0, 1, 3, 2))
        return probabilities(logits, self.contract.temperature)


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Softmax of ``logits / temperature``.

    Parameters
    ----------
    logits : ndarray of float32, shape (m, classes)
    temperature : float
        Above 1: less sure (Guo et al. 2017, "On calibration of modern neural networks").

    Returns
    -------
    ndarray of float32, shape (m, classes)
    """
    scaled = logits.astype(np.float64) / temperature
    # Class by class: a sum along the rows may be ordered by the number of rows.
    peak = scaled[:, 0].copy()
    for column in range(1, scaled.shape[1]):
        np.maximum(peak, scaled[:, column], out=peak)
    odds = np.exp(scaled - peak[:, None])
    total = odds[:, 0].copy()
    for column in range(1, odds.shape[1]):
        total += odds[:, column]
    return (odds / total[:, None]).astype(np.float32)
