"""The source study's network: one convolution and three dense layers on a colour picture of a beat's spectrogram.

6,213,602 parameters with six classes: a 3x3 convolution of 32 filters on 64x64x3, max-pooling, then dense layers of
200, 300 and the classes. The picture is drawn as such studies do: power in dB of each window against its own maximum,
shown through a colour map.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy import signal as sps
from torch import nn

from inference.training.baselines.beats import RATE, Beats

SIDE: Final = 64
"""Pixels of a side of the picture."""

SEGMENT: Final = 64
HOP: Final = 8
HIGHEST: Final = 50.0
FLOOR: Final = -60.0
"""STFT: samples of a segment and between segments; Hz shown; dB under the maximum shown."""

STUDY_CLASSES: Final = ("N", "L", "R", "A", "V", "VT")
"""The study's six classes: V is split by whether it lies in ventricular tachycardia."""

STUDY_GROUPS: Final = (0, 0, 0, 1, 2, 2)
"""AAMI group of each."""


class StudyCnn(nn.Module):
    """The network; logits from pictures.

    Parameters
    ----------
    classes : int
        Outputs.
    """

    def __init__(self, classes: int = len(STUDY_CLASSES)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 31 * 31, 200),
            nn.ReLU(),
            nn.Linear(200, 300),
            nn.ReLU(),
            nn.Linear(300, classes),
        )

    def forward(self, pictures: torch.Tensor) -> Any:
        """Logits, shape (m, classes), of pictures, shape (m, 3, SIDE, SIDE)."""
        return self.layers(pictures)


def labels(beats: Beats) -> NDArray[np.bool_]:
    """Which of the six classes each beat may be called, shape (m, 6); none for fusion, paced and Q beats."""
    allowed = np.zeros((beats.classes.size, len(STUDY_CLASSES)), bool)
    allowed[:, :5] = beats.open_labels[:, :5]
    allowed[beats.vt, 4], allowed[beats.vt, 5] = False, True
    # svdb marks no rhythms: a run of its V beats may be a tachycardia.
    allowed[(beats.classes == 4) & beats.of("svdb"), 5] = True
    return allowed


@cache
def _stretch(size: int) -> NDArray[np.float32]:
    """Matrix of linear interpolation from `size` to `SIDE` points."""
    at = np.linspace(0, size - 1, SIDE)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size))), np.float32)


def pictures(windows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw spectrograms: index into the colour map, low frequencies at the bottom.

    Parameters
    ----------
    windows : ndarray of float32, shape (m, samples)

    Returns
    -------
    ndarray of uint8, shape (m, SIDE, SIDE)
        Rows are frequencies, columns time.
    """
    parts = [np.zeros((0, SIDE, SIDE), np.uint8)]
    for at in range(0, len(windows), 2048):
        f, _, power = sps.spectrogram(windows[at : at + 2048], RATE, nperseg=SEGMENT, noverlap=SEGMENT - HOP, nfft=128)
        db = 10 * np.log10(power[:, f <= HIGHEST].astype(np.float32) + 1e-12)
        db = np.maximum(db - db.max(axis=(1, 2), keepdims=True), FLOOR)
        image = _stretch(db.shape[1]) @ db @ _stretch(db.shape[2]).T
        parts.append(np.round(255 * (1 - image[:, ::-1] / FLOOR)).astype(np.uint8))
    return np.concatenate(parts)


@cache
def colours() -> NDArray[np.float32]:
    """Colour map of the pictures, shape (256, 3), 0 to 1."""
    return np.asarray(mpl.colormaps["viridis"](np.arange(256))[:, :3], np.float32)


def coloured(indexed: NDArray[np.uint8]) -> torch.Tensor:
    """Colour pictures: float32, shape (m, 3, SIDE, SIDE), 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(colours()[indexed].transpose(0, 3, 1, 2)))


def to_onnx(network: StudyCnn) -> onnx.ModelProto:
    """Write the network as an ONNX graph: input ``pictures``, output ``logits``."""
    state = network.state_dict()
    names = {0: "conv", 4: "dense1", 6: "dense2", 8: "dense3"}
    weights = [
        numpy_helper.from_array(state[f"layers.{i}.{kind}"].numpy(), f"{name}.{kind}")
        for i, name in names.items()
        for kind in ("weight", "bias")
    ]

    def dense(name: str, source: str, result: str) -> onnx.NodeProto:
        return helper.make_node("Gemm", [source, f"{name}.weight", f"{name}.bias"], [result], transB=1)

    nodes = [
        helper.make_node("Conv", ["pictures", "conv.weight", "conv.bias"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["cr"]),
        helper.make_node("MaxPool", ["cr"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        dense("dense1", "f", "d1"),
        helper.make_node("Relu", ["d1"], ["r1"]),
        dense("dense2", "r1", "d2"),
        helper.make_node("Relu", ["d2"], ["r2"]),
        dense("dense3", "r2", "logits"),
    ]
    classes = len(state["layers.8.bias"])
    graph = helper.make_graph(
        nodes,
        "study_cnn",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["m", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["m", classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
