"""A small residual network on the study's pictures, for transfer learning: its body is pre-trained on other sets.

He et al., Deep residual learning (CVPR 2016), in the small: a stem and three stages of one residual block.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

WIDTHS: Final = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> Any:
        """Give the block's output, shape (m, outputs, height / stride, width / stride)."""
        return torch.relu(self.main(x) + self.short(x))


class ResNet(nn.Module):
    """Logits from pictures, shape (m, 3, 64, 64).

    Parameters
    ----------
    classes : int
        Outputs.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 5, 4, 2, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
            Block(WIDTHS[0], WIDTHS[0], 1),
            Block(WIDTHS[0], WIDTHS[1], 2),
            Block(WIDTHS[1], WIDTHS[2], 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(WIDTHS[-1], classes)

    def forward(self, pictures: torch.Tensor) -> Any:
        """Logits, shape (m, classes)."""
        return self.head(self.body(pictures))


def transferred(source: ResNet, classes: int) -> ResNet:
    """Give a network with the body of another and a new head."""
    network = ResNet(classes)
    network.body.load_state_dict(source.body.state_dict())
    return network
