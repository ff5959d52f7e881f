"""The two networks that images train, each from the same folders to the same kind of ONNX file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dsp.layout import FS
from dsp.spectrogram import BINS
from inference.contract import KEY, Contract, to_json
from inference.features import NAMES
from inference.features_image import CHANNELS, COLUMNS, CONTRACT
from inference.training.baselines.fitting import fit, predict
from inference.training.baselines.study_cnn import SIDE, StudyCnn, coloured, colours, to_onnx
from inference.training.beat_export import OPSET
from inference.training.beat_network import BeatNetwork
from rhythmwatch.picture_model import OURS, STUDY

if TYPE_CHECKING:
    from rhythmwatch.training_images import Images

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "ours": {"epochs": 12, "batch": 128, "rate": 3e-3, "decay": 1e-2, "balance": 0.5, "cycle": True},
    "study": {"epochs": 8, "batch": 64, "rate": 1e-3, "decay": 1e-4, "balance": 0.5, "cycle": True},
}
VERSION: Final = "images-1"


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that learnt from images.

    Attributes
    ----------
    losses : list of float
        Mean of each epoch.
    predict : callable
        Logits, shape (m, classes), of images.
    save : callable
        Writes the ONNX file with its contract.
    """

    losses: list[float]
    predict: Callable[[Images], NDArray[np.float32]]
    save: Callable[[Path], None]


class _Joined(nn.Module):
    """Our network behind one tensor: features, then channels."""

    def __init__(self, network: BeatNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> Any:
        features, images = rows[:, : len(NAMES)], rows[:, len(NAMES) :]
        return self.network(features, images.reshape(-1, CHANNELS, COLUMNS, BINS))


def _stated(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale of the features that are known; what is nowhere known is 0 of scale 1."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, features, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean.astype(np.float32), np.where(spread > 1e-3, spread, 1.0).astype(np.float32)


def train_ours(
    data: Images, classes: list[str], seed: int, settings: dict[str, Any] | None, training: str,
    progress: Callable[[str], None],
) -> Trained:  # fmt: skip
    """Train our network on channels and features; images without features get their means.

    Parameters
    ----------
    data : Images
    classes : list of str
    seed : int
    settings : dict, optional
        In place of `SETTINGS`.
    training : str
        Hash of the records.
    progress : callable
    """
    mean, scale = _stated(data.features)

    def inputs(images: Images) -> Callable[[NDArray[np.int64]], torch.Tensor]:
        def rows(index: NDArray[np.int64]) -> torch.Tensor:
            features = np.where(np.isfinite(images.features[index]), images.features[index], mean)
            channels = images.channels[index].astype(np.float32).reshape(len(index), -1)
            return torch.from_numpy(np.concatenate([features, channels], axis=1))

        return rows

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = BeatNetwork(torch.from_numpy(mean), torch.from_numpy(scale), len(classes))
    used = settings or SETTINGS["ours"]
    progress(f"training our network, {used['epochs']} epochs")
    joined, losses = fit(_Joined(network), inputs(data), np.eye(len(classes), dtype=bool)[data.labels], used, seed)
    contract = Contract(
        OURS, VERSION, FS, tuple(classes), NAMES, tuple(mean.tolist()), tuple(scale.tolist()), training=training,
        image=CONTRACT,
    )  # fmt: skip

    def save(path: Path) -> None:
        buffer: Any = io.BytesIO()
        example = (torch.zeros(2, len(NAMES)), torch.zeros(2, CHANNELS, COLUMNS, BINS))
        names = ["features", "images"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(), example, buffer, input_names=names, output_names=["logits"], opset_version=OPSET,
                dynamic_axes={name: {0: "rows"} for name in (*names, "logits")}, dynamo=False,
            )  # fmt: skip
        _write(onnx.load_from_string(buffer.getvalue()), contract, path)

    return Trained(losses, lambda images: predict(joined, inputs(images), len(images.labels)), save)


def train_study(
    data: Images, classes: list[str], seed: int, settings: dict[str, Any] | None, training: str,
    progress: Callable[[str], None],
) -> Trained:  # fmt: skip
    """Train the source study's network on coloured pictures; parameters as `train_ours`."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    used = settings or SETTINGS["study"]
    progress(f"training the study's network, {used['epochs']} epochs")
    network, losses = fit(
        StudyCnn(len(classes)), lambda i: coloured(data.pixels[i]), np.eye(len(classes), dtype=bool)[data.labels], used,
        seed,
    )  # fmt: skip
    contract = Contract(STUDY, VERSION, FS, tuple(classes), (), training=training)

    def save(path: Path) -> None:
        _write(_with_colours(to_onnx(network)), contract, path)

    return Trained(
        losses, lambda images: predict(network, lambda i: coloured(images.pixels[i]), len(images.labels)), save
    )


def _with_colours(model: Any) -> Any:
    """Put the colour map before the graph, so that grey pixels (0 to 255, float32) go in."""
    graph = model.graph
    table = numpy_helper.from_array(colours(), "colours")
    nodes = [
        helper.make_node("Cast", ["grey"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["colours", "index"], ["drawn"]),
        helper.make_node("Transpose", ["drawn"], ["pictures"], perm=[0, 3, 1, 2]),
    ]
    own = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *own])
    graph.initializer.append(table)
    graph.input.append(helper.make_tensor_value_info("grey", TensorProto.FLOAT, ["m", SIDE, SIDE]))
    return model


def _write(model: Any, contract: Contract, path: Path) -> None:
    model.ir_version = 8
    helper.set_model_props(model, {KEY: to_json(contract)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


TRAINERS: Final = {"ours": train_ours, "study": train_study}
