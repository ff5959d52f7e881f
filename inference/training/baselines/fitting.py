"""Fit a PyTorch network on labels that may leave classes open, deterministic by seed, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
Inputs = Callable[[NDArray[np.int64]], torch.Tensor]
"""Input tensor of the rows at an index."""


def loss(logits: torch.Tensor, allowed: torch.Tensor, asked: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the negative log-likelihood of the allowed classes among those asked.

    Parameters
    ----------
    logits : Tensor of float32, shape (m, classes)
    allowed, asked : Tensor of bool, shape (m, classes)
        Classes that the label leaves open; classes of the row's task.
    weights : Tensor of float32, shape (m,)

    Returns
    -------
    Tensor of float32, shape ()
    """
    own = torch.logsumexp(logits.masked_fill(~allowed, -1e9), dim=1)
    everything = torch.logsumexp(logits.masked_fill(~asked, -1e9), dim=1)
    return (weights * (everything - own)).sum() / weights.sum()


def balanced(allowed: NDArray[np.bool_], power: float) -> NDArray[np.float32]:
    """Weight each row by (number of rows with its label) to the minus `power`, of mean 1."""
    code = allowed @ (1 << np.arange(allowed.shape[1]))
    _, place, count = np.unique(code, return_inverse=True, return_counts=True)
    weight = count[place] ** -power
    return np.asarray(weight / weight.mean(), np.float32)


def fit(
    network: Network,
    inputs: Inputs,
    allowed: NDArray[np.bool_],
    settings: dict[str, Any],
    seed: int,
    asked: NDArray[np.bool_] | None = None,
) -> tuple[Network, list[float]]:
    """Train a network in place for a fixed number of epochs; nothing is chosen on held-out rows.

    Parameters
    ----------
    network : Module
    inputs : callable
    allowed : ndarray of bool, shape (m, classes)
        Labels; each row needs one at least.
    settings : dict
        ``epochs``, ``batch``, ``rate``, ``decay``, ``balance`` (power of `balanced`), ``cycle`` (one-cycle schedule).
    seed : int
    asked : ndarray of bool, shape (m, classes), optional
        Classes of each row's task; all without it.

    Returns
    -------
    (Module, list of float)
        In evaluation mode; mean loss of each epoch.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    m, batch = len(allowed), settings["batch"]
    open_labels = torch.from_numpy(allowed)
    task = torch.ones_like(open_labels) if asked is None else torch.from_numpy(asked)
    weights = torch.from_numpy(balanced(allowed, settings["balance"]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])
    steps = settings["epochs"] * max(1, m // batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["rate"], total_steps=steps)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    schedule = cycle if settings["cycle"] else constant
    network.train()
    history = []
    for _ in range(settings["epochs"]):
        order, total = rng.permutation(m), 0.0
        for at in range(max(1, m // batch)):
            index = np.sort(order[at * batch : (at + 1) * batch])
            value = loss(network(inputs(index)), open_labels[index], task[index], weights[index])
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            schedule.step()
            total += value.item()
        history.append(total / max(1, m // batch))
    return network.eval(), history


def predict(network: nn.Module, inputs: Inputs, m: int) -> NDArray[np.float32]:
    """Logits of rows 0 to m, shape (m, classes)."""
    with torch.no_grad():
        parts = [network(inputs(np.arange(at, min(m, at + 512)))).numpy() for at in range(0, m, 512)]
    return np.concatenate(parts)
