"""Why a beat was called what it was: the parts of its spectral image that spoke for the class, and against.

Between the last activation of the convolutions and the logits the network is linear but for two rectifiers, whose state
the run itself gives. The step of "class less second-best class" is therefore an exact sum over the cells of that
activation, the feature columns and the biases; each cell's summand is the map (gradient times activation without
averaging: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations"). The trees, which share
the verdict, see no image and are not in the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dsp.kernel import kernel
from dsp.spectrogram import BINS
from inference.contract import ContractError
from inference.features_image import COLUMNS
from inference.runtime import Model

STRIDE: Final = 8
"""Columns, and bins, from cell to cell of the map; cell i is centred on column (bin) ``STRIDE * i``."""

CELLS: Final = (COLUMNS // STRIDE, BINS // STRIDE)
"""Cells of a map: along time, along frequency from the lowest."""

NONE: Final = 128
"""Byte of a cell that spoke neither for the class nor against it."""

SIZE: Final = 1 + CELLS[0] * CELLS[1]
"""Bytes of a packed map."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The linear rest of the network behind its last activation.

    Attributes
    ----------
    pool : ndarray of float32, shape (channels, *CELLS)
        One weight for each value of the activation.
    head : ndarray of float32, shape (hidden, joined)
    last : ndarray of float32, shape (classes, hidden)
    """

    pool: NDArray[np.float32]
    head: NDArray[np.float32]
    last: NDArray[np.float32]


def maps(
    activation: NDArray[np.float32],
    joined: NDArray[np.float32],
    hidden: NDArray[np.float32],
    weights: Weights,
    best: NDArray[np.int64],
    second: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split the lead of one class over another into what each cell of the image and the feature columns gave.

    Parameters
    ----------
    activation : ndarray of float32, shape (m, channels, *CELLS)
    joined : ndarray of float32, shape (m, joined)
        Rectified: the pooled image, then the feature columns.
    hidden : ndarray of float32, shape (m, hidden)
        Rectified.
    weights : Weights
    best, second : ndarray of int64, shape (m,)
        Classes.

    Returns
    -------
    cells : ndarray of float32, shape (m, *CELLS)
        Logits that each cell adds to the lead of `best`.
    columns : ndarray of float32, shape (m,)
        Logits that the feature columns add.
    """
    cells = np.zeros((len(best), *CELLS), np.float32)
    columns = np.zeros(len(best), np.float32)
    flat = activation.reshape(len(best), len(weights.pool), -1)
    pool = weights.pool.reshape(len(weights.pool), -1)
    _maps(flat, joined, hidden, pool, weights.head, weights.last, best, second, cells.reshape(len(best), -1), columns)
    return cells, columns


@kernel
def _maps(
    activation: Any, joined: Any, hidden: Any, pool: Any, head: Any, last: Any, best: Any, second: Any, cells: Any,
    columns: Any,
) -> None:  # fmt: skip
    slope = np.empty(head.shape[1], np.float32)
    for i in range(best.size):
        slope[:] = np.float32(0.0)
        for h in range(hidden.shape[1]):
            if hidden[i, h] > 0:
                w = last[best[i], h] - last[second[i], h]
                for k in range(slope.size):
                    slope[k] += w * head[h, k]
        for k in range(pool.shape[0]):
            if joined[i, k] > 0:
                for j in range(pool.shape[1]):
                    cells[i, j] += slope[k] * pool[k, j] * activation[i, k, j]
        for k in range(pool.shape[0], slope.size):
            columns[i] += slope[k] * joined[i, k]


def pack(cells: NDArray[np.float32], columns: NDArray[np.float32]) -> list[bytes]:
    """Make maps small enough to travel with each beat.

    Parameters
    ----------
    cells, columns
        From `maps`.

    Returns
    -------
    list of bytes
        `SIZE` each: the share of the image in percent (against the feature columns), then the cells along time, each
        along frequency; 255 is the strongest for the class, 1 as strong against it, `NONE` neither.
    """
    flat = cells.reshape(len(cells), -1)
    peak = np.maximum(np.abs(flat).max(axis=1, keepdims=True, initial=0.0), 1e-9)
    levels = np.rint(NONE + 127 * flat / peak).astype(np.uint8)
    image = np.abs(flat).sum(axis=1)
    share = np.rint(100 * image / np.maximum(image + np.abs(columns), 1e-9)).astype(np.uint8)
    return [row.tobytes() for row in np.concatenate([share[:, None], levels], axis=1)]


def heat(packed: bytes) -> NDArray[np.float32]:
    """Spread a packed map over the grid of the spectral image.

    Parameters
    ----------
    packed : bytes
        From `pack`.

    Returns
    -------
    ndarray of float32, shape (BINS, COLUMNS)
        -1 (against) to 1 (for); between the centres of cells linear, beyond the last one constant.

    Raises
    ------
    ValueError
        If it has another size.
    """
    if len(packed) != SIZE:
        raise ValueError(f"a map has {SIZE} bytes, not {len(packed)}")
    cells = (np.frombuffer(packed, np.uint8, offset=1).astype(np.float32) - NONE) / 127
    return np.asarray(_spread(BINS, CELLS[1]) @ cells.reshape(CELLS).T @ _spread(COLUMNS, CELLS[0]).T, np.float32)


def image_share(packed: bytes) -> int:
    """Share of the image in the network's part of the verdict, percent; the rest is RR, shape and P wave."""
    return packed[0]


def occlusion(
    judge: Callable[[NDArray[np.float32]], NDArray[np.float32]], picture: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities of a picture by any model, and what each cell adds to the lead of the class over the second best.

    A cell is painted over with the channel's median, and the picture judged again (Zeiler and Fergus 2014, "Visualizing
    and understanding convolutional networks"). Unlike `maps` this needs no knowledge of the model, and is no exact sum.

    Parameters
    ----------
    judge : callable
        Probabilities, shape (m, classes), of pictures, shape (m, channels, columns, bins).
    picture : ndarray of float32, shape (channels, columns, bins)
        Time, then frequency from the lowest.

    Returns
    -------
    probabilities : ndarray of float32, shape (classes,)
    cells : ndarray of float32, shape CELLS
        Log-odds of the class against the second best that go with the cell; for `pack`.
    """
    columns, bins = picture.shape[1:]
    middle = np.median(picture, axis=(1, 2), keepdims=True)
    variants = np.repeat(picture[None], 1 + CELLS[0] * CELLS[1], axis=0)
    for i in range(CELLS[0]):
        for j in range(CELLS[1]):
            # Cells lie about their centres as `heat` draws them: the first ones are half as long.
            a, b = (max(0, round((k - 0.5) * columns / CELLS[0])) for k in (i, i + 1))
            c, d = (max(0, round((k - 0.5) * bins / CELLS[1])) for k in (j, j + 1))
            b, d = columns if i == CELLS[0] - 1 else b, bins if j == CELLS[1] - 1 else d
            variants[1 + i * CELLS[1] + j, :, a:b, c:d] = middle
    p = judge(variants)
    best, second = np.argsort(-p[0], kind="stable")[:2].tolist()
    lead = np.log(np.maximum(p[:, best], 1e-6)) - np.log(np.maximum(p[:, second], 1e-6))
    return p[0], np.asarray((lead[0] - lead[1:]).reshape(CELLS), np.float32)


def _spread(size: int, cells: int) -> NDArray[np.float32]:
    at = np.minimum(np.arange(size) / STRIDE, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))), np.float32)


@dataclass(frozen=True, slots=True)
class Explainer:
    """The beat model with its inner tensors as further outputs; the file itself is not changed.

    Attributes
    ----------
    model : Model
    weights : Weights
    """

    model: Model
    weights: Weights

    @classmethod
    def load(cls, path: Path) -> Explainer:
        """Read a beat model.

        Raises
        ------
        inference.contract.ContractError
            The file is missing or its network is not built as `inference.training.beat_network` builds it.
        """
        if not path.is_file():
            raise ContractError(f"no model at {path}; install the package again or train one")
        tensors, weights = _inside(path)
        return cls(Model(path, tensors), weights)


def _inside(path: Path) -> tuple[tuple[str, str, str], Weights]:
    """Names of the inner tensors, and the weights behind them."""
    graph = onnx.load(str(path)).graph
    arrays = {item.name: item for item in graph.initializer}
    maker: dict[str, Any] = {name: node for node in graph.node for name in node.output}

    def array(name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(arrays[name]), np.float32)

    try:
        last = maker["logits"]
        head = maker[maker[last.input[0]].input[0]]
        join = maker[head.input[0]]
        pool = maker[maker[maker[join.input[0]].input[0]].input[0]]
        weights = Weights(array(pool.input[1])[:, 0], array(head.input[1]), array(last.input[1]))
    except (KeyError, IndexError) as error:
        raise ContractError(f"{path} is built in another way than this version explains: train it again") from error
    if weights.pool.shape[1:] != CELLS:
        raise ContractError(f"{path} has cells {weights.pool.shape[1:]}, this version explains {CELLS}")
    return (str(pool.input[0]), str(head.input[0]), str(last.input[0])), weights
