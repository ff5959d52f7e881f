"""The beat network: a small depthwise-separable CNN on the spectral image, joined by the feature columns.

Feature normalisation is part of the graph; raw features go in and logits come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn

from dsp.spectrogram import BINS
from inference.explain import STRIDE
from inference.features_image import CHANNELS, COLUMNS

SHAPE: Final[Mapping[str, Any]] = {
    "patch": 2, "stem": 16, "blocks": [[32, 2], [32, 1], [48, 2], [64, 1]], "columns": [64], "head": 48,
}  # fmt: skip
"""Of the shipped network, see `BeatNetwork`."""


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _dense(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)


class BeatNetwork(nn.Module):
    """Logits of the beat classes.

    Parameters
    ----------
    mean, scale : Tensor of float32, shape (features,)
        Normalisation of the features: ``clip((x - mean) / scale, -6, 6)``, unless there are `edges`.
    classes : int
        Outputs.
    dropout : float
        Of feature columns and of the hidden layer, in training.
    shape : mapping
        ``patch`` (side and stride of the first convolution: 2 or 4), ``stem`` (its channels), ``blocks`` (channels and
        stride of each depthwise-separable one; the strides and `patch` multiply to 8), ``columns`` (widths of the
        layers that the feature columns pass), ``head`` (width of the layer that joins both).
    edges : Tensor of float32, shape (features, pieces + 1), optional
        Ascending values of each feature: it enters as one number a piece, 0 below it to 1 above it. So a first layer
        can follow steps and kinks as trees do (Gorishniy et al. 2022, "On embeddings for numerical features in tabular
        deep learning").

    Raises
    ------
    ValueError
        If the strides don't multiply to `inference.explain.STRIDE`.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor | None
    step: torch.Tensor | None

    def __init__(
        self,
        mean: torch.Tensor,
        scale: torch.Tensor,
        classes: int,
        dropout: float = 0.1,
        shape: Mapping[str, Any] = SHAPE,
        edges: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        patch, channels = shape["patch"], shape["stem"]
        if patch * math.prod(stride for _, stride in shape["blocks"]) != STRIDE:
            raise ValueError(f"patch and strides of a beat network multiply to {STRIDE}, not as in {shape}")
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("low", None if edges is None else edges[:, :-1].clone())
        self.register_buffer("step", None if edges is None else edges.diff(dim=1).clamp(min=1e-3))
        # A patch of 4 does not overlap the next one: a quarter of the work of two convolutions of stride 2.
        first = nn.Conv2d(CHANNELS, channels, 4, 4, bias=False) if patch == 4 else _dense(CHANNELS, channels)
        layers = [nn.BatchNorm2d(CHANNELS), first, nn.BatchNorm2d(channels), nn.ReLU()]
        for width, stride in shape["blocks"]:
            layers.append(_separable(channels, width, stride))
            channels = width
        pool = nn.Conv2d(channels, channels, (COLUMNS // STRIDE, BINS // STRIDE), groups=channels, bias=False)
        self.image = nn.Sequential(*layers, pool, nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten())
        self.drop = nn.Dropout(dropout)
        widths = [mean.numel() if edges is None else mean.numel() * (edges.shape[1] - 1), *shape["columns"]]
        self.columns = nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))
        self.head = nn.Sequential(nn.Linear(channels + widths[-1], shape["head"]), nn.ReLU(), nn.Dropout(dropout))
        self.last = nn.Linear(shape["head"], classes)

    def forward(self, features: torch.Tensor, images: torch.Tensor) -> Any:
        """Compute logits.

        Parameters
        ----------
        features : Tensor of float32, shape (m, features)
            Raw.
        images : Tensor of float32, shape (m, channels, columns, bins)

        Returns
        -------
        Tensor of float32, shape (m, classes)
        """
        if self.low is None or self.step is None:
            x = torch.clamp((features - self.mean) / self.scale, -6.0, 6.0)
        else:
            x = torch.clamp((features[:, :, None] - self.low) / self.step, 0.0, 1.0).flatten(1)
        return self.last(self.head(torch.cat([self.image(images), self.columns(self.drop(x))], dim=1)))


def loss(logits: torch.Tensor, allowed: torch.Tensor, weights: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Negative log-likelihood of the set of classes that each row may be called, smoothed.

    Parameters
    ----------
    logits : Tensor of float32, shape (m, classes)
    allowed : Tensor of float32, shape (m, classes)
        1 for the classes that the label leaves open.
    weights : Tensor of float32, shape (m,)
    smoothing : float
        Share of the label that goes to all classes alike.

    Returns
    -------
    Tensor of float32, shape ()
    """
    log_p = torch.log_softmax(logits, dim=1)
    known = -torch.logsumexp(log_p + torch.log(allowed.clamp(min=1e-9)), dim=1)
    return (weights * ((1 - smoothing) * known - smoothing * log_p.mean(dim=1))).sum() / weights.sum()
