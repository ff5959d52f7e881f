"""A 1-D convolutional network on the raw window about a beat.

After Kiranyaz, Ince, Gabbouj, IEEE Trans. Biomed. Eng. 63, 2016.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

WIDTHS: Final = (16, 32, 64, 64)


class Cnn1d(nn.Module):
    """Logits from normalised windows, shape (m, 1, samples).

    Parameters
    ----------
    classes : int
        Outputs.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in WIDTHS:
            layers += [nn.Conv1d(inputs, outputs, 7, 2, 3, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(8 * inputs, 64), nn.ReLU(), nn.Linear(64, classes)
        )

    def forward(self, windows: torch.Tensor) -> Any:
        """Logits, shape (m, classes)."""
        return self.layers(windows)


def normalised(windows: NDArray[np.float32]) -> torch.Tensor:
    """Windows of zero mean and unit deviation, shape (m, 1, samples)."""
    centred = windows - windows.mean(axis=1, keepdims=True)
    return torch.from_numpy((centred / (centred.std(axis=1, keepdims=True) + 1e-3))[:, None])
