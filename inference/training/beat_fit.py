"""Fit the two beat models on rows: the network (PyTorch) and boosted trees (LightGBM), both deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray

from inference.training.beat_network import BeatNetwork, loss
from inference.training.records import CLASSES, GROUP_OF_CLASS

TREE_CLASSES: Final = 3
"""Trees tell N (with F), S and V apart; the finer classes are the network's."""

_GROUP: Final = np.array(GROUP_OF_CLASS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows.

    Attributes
    ----------
    features : ndarray of float32, shape (m, features)
    images : ndarray of float16, shape (m, channels, columns, bins)
    allowed : ndarray of uint8, shape (m,)
        Bit i: the row may be called class i; 0 nowhere.
    weight : ndarray of float32, shape (m,)
    """

    features: NDArray[np.float32]
    images: NDArray[np.float16]
    allowed: NDArray[np.uint8]
    weight: NDArray[np.float32]

    @property
    def groups(self) -> NDArray[np.int64]:
        """AAMI group of each row."""
        return groups(self.allowed)


def groups(allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """AAMI group of class sets that lie within one group; -1 for an empty set."""
    result = np.full(allowed.size, -1, np.int64)
    for index in reversed(range(len(CLASSES))):
        result[(allowed >> index) & 1 > 0] = _GROUP[index]
    return result


def fit_network(
    data: Rows, settings: dict[str, Any], seed: int, progress: Callable[[str], None] | None = None
) -> BeatNetwork:
    """Train the network.

    Parameters
    ----------
    data : Rows
    settings : dict
        ``epochs``, ``draws`` (rows an epoch), ``shares`` (of N, S, V with F and Q among the draws), ``batch``,
        ``rate``, ``decay``, ``smoothing``, ``dropout``.
    seed : int
    progress : callable, optional
        Told a line after each epoch.

    Returns
    -------
    BeatNetwork
        In evaluation mode.

    Raises
    ------
    ValueError
        If one of N, S, V has no beat.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    group = data.groups
    mean = data.features.mean(axis=0)
    scale = np.maximum(data.features.std(axis=0), 1e-3)
    network = BeatNetwork(torch.from_numpy(mean), torch.from_numpy(scale), len(CLASSES), settings["dropout"])
    pools = [np.flatnonzero(group == 0), np.flatnonzero(group == 1), np.flatnonzero(group >= 2)]
    if not all(pool.size for pool in pools):
        raise ValueError("training needs beats of N, of S and of V: take more records")
    chances = [w / w.sum() for w in (data.weight[pool].astype(np.float64) for pool in pools)]
    counts = [int(settings["draws"] * share) for share in settings["shares"]]
    bits = torch.from_numpy(((data.allowed[:, None] >> np.arange(len(CLASSES))) & 1).astype(np.float32))
    batch = settings["batch"]
    steps = settings["epochs"] * (sum(counts) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["rate"], total_steps=steps)
    ones = torch.ones(batch)
    network.train()
    for epoch in range(settings["epochs"]):
        drawn = [rng.choice(p, n, p=c) for p, n, c in zip(pools, counts, chances, strict=True)]
        order = rng.permutation(np.concatenate(drawn))
        total = 0.0
        for at in range(0, len(order) - batch + 1, batch):
            index = np.sort(order[at : at + batch])
            images = torch.from_numpy(augment(data.images[index].astype(np.float32), rng))
            images = images.contiguous(memory_format=torch.channels_last)
            logits = network(torch.from_numpy(data.features[index]), images)
            value = loss(logits, bits[index], ones, settings["smoothing"])
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            schedule.step()
            total += value.item()
        if progress is not None:
            progress(f"network, epoch {epoch + 1} of {settings['epochs']}: loss {total / (len(order) // batch):.4f}")
    network.eval()
    return network


def augment(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary images as other recorders would: gain, tilt over frequency, offset, a column's shift.

    Parameters
    ----------
    images : ndarray of float32, shape (m, channels, columns, bins)
        Changed.
    rng : Generator

    Returns
    -------
    ndarray of float32
        `images`.
    """
    m, _, _, bins = images.shape
    tilt = np.linspace(-1, 1, bins, dtype=np.float32)
    curve = rng.normal(0, 0.2, (m, 1)) + rng.normal(0, 0.25, (m, 1)) * tilt
    gain = curve.astype(np.float32)[:, None, :]
    images[:, 0] += gain
    root = np.exp(0.5 * gain)
    images[:, 2] *= root
    images[:, 3] *= root
    moved = np.flatnonzero(rng.random(m) < 0.2)
    images[moved] = np.roll(images[moved], 1 if rng.random() < 0.5 else -1, axis=2)
    images += rng.normal(0, 0.05, (*images.shape[:1], 1, 1, 1)).astype(np.float32)
    return images


def network_logits(network: BeatNetwork, features: NDArray[np.float32], images: NDArray[Any]) -> NDArray[np.float32]:
    """Logits of all rows, shape (m, classes)."""
    parts = []
    with torch.no_grad():
        for at in range(0, len(features), 1024):
            part = images[at : at + 1024].astype(np.float32)
            parts.append(network(torch.from_numpy(features[at : at + 1024]), torch.from_numpy(part)).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(CLASSES)), np.float32)


def fit_trees(data: Rows, settings: dict[str, Any], seed: int) -> lgb.Booster:
    """Fit trees that tell N (with F), S and V apart.

    Parameters
    ----------
    data : Rows
    settings : dict
        ``trees``, ``leaves``, ``rate``, ``feature_fraction``, ``least``, ``l2``, ``balance`` (weights of N, S, V).
    seed : int

    Returns
    -------
    lightgbm.Booster
        Multiclass, `TREE_CLASSES` trees a round.
    """
    group = data.groups
    rows = np.flatnonzero((group >= 0) & (group < 4))
    target = np.where(group[rows] == 3, 0, group[rows])
    weight = data.weight[rows] * np.array(settings["balance"])[target]
    parameters = {
        "objective": "multiclass",
        "num_class": TREE_CLASSES,
        "learning_rate": settings["rate"],
        "num_leaves": settings["leaves"],
        "feature_fraction": settings["feature_fraction"],
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "min_data_in_leaf": settings["least"],
        "lambda_l2": settings["l2"],
        "max_bin": 127,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    train = lgb.Dataset(
        data.features[rows], target, weight=weight / weight.mean(), params={"max_bin": 127, "verbose": -1}
    )
    return lgb.train(parameters, train, settings["trees"])
