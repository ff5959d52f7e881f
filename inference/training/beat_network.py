"""The beat network: a small depthwise-separable CNN on the spectral image, joined by the feature columns.

Feature normalisation is part of the graph; raw features go in and logits come out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dsp.spectrogram import BINS
from inference.features_image import CHANNELS, COLUMNS


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class BeatNetwork(nn.Module):
    """Logits of the beat classes.

    Parameters
    ----------
    mean, scale : Tensor of float32, shape (features,)
        Normalisation of the features: ``clip((x - mean) / scale, -6, 6)``.
    classes : int
        Outputs.
    dropout : float
        Of feature columns and of the hidden layer, in training.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.image = nn.Sequential(
            nn.BatchNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            _separable(16, 32, 2),
            _separable(32, 32, 1),
            _separable(32, 48, 2),
            _separable(48, 64, 1),
            nn.Conv2d(64, 64, (COLUMNS // 8, BINS // 8), groups=64, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.drop = nn.Dropout(dropout)
        self.columns = nn.Sequential(nn.Linear(mean.numel(), 64), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(128, 48), nn.ReLU(), nn.Dropout(dropout))
        self.last = nn.Linear(48, classes)

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
        x = torch.clamp((features - self.mean) / self.scale, -6.0, 6.0)
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
