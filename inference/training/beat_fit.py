"""Fit the two beat models on rows: the network (PyTorch) and boosted trees (LightGBM), both deterministic by seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray

from inference.training.beat_checkpoint import Checkpoints, key, random_state, set_random_state
from inference.training.beat_network import BeatNetwork, loss
from inference.training.records import CLASSES, GROUP_OF_CLASS

TREE_CLASSES: Final = 3
"""Trees tell N (with F), S and V apart; the finer classes are the network's."""

EDGE_ROWS: Final = 40_000
"""Rows that tell the pieces of each feature, about."""

_GROUP: Final = np.array(GROUP_OF_CLASS)
_SUMMED: Final = ((0, 1, 2, 5), (3,), (4,))
"""Classes of the network that each class of the trees stands for; they know no paced ones."""


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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network.

    Attributes
    ----------
    network : BeatNetwork
        In evaluation mode.
    epochs : int
        Epochs that it was trained for: where held-out patients fared best, all of them without such.
    losses, held : tuple of float
        Mean loss of each epoch, and on the held-out rows.
    """

    network: BeatNetwork
    epochs: int
    losses: tuple[float, ...]
    held: tuple[float, ...] = ()


def fit_network(
    data: Rows,
    settings: dict[str, Any],
    seed: int,
    progress: Callable[[str], None] | None = None,
    *,
    name: str = "network",
    soft: NDArray[np.float32] | None = None,
    held: Rows | None = None,
    begin: BeatNetwork | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train the network.

    Parameters
    ----------
    data : Rows
    settings : dict
        ``shape`` (see `BeatNetwork`, and ``pieces`` of each feature, 0 for normalised ones), ``epochs``, ``draws``
        (rows an epoch), ``shares`` (of N, S, V with F and Q among the draws), ``batch``, ``rate``, ``decay``,
        ``smoothing``, ``dropout``, ``soften`` (share of `soft` in the loss), and optionally ``patience`` (epochs
        without a gain on `held` after which it stops).
    seed : int
    progress : callable, optional
        Told a line after each epoch.
    name : str
        Of the fit, for `progress` and `checkpoints`.
    soft : ndarray of float32, shape (m, TREE_CLASSES), optional
        Probabilities that trees give the rows.
    held : Rows, optional
        Rows of other patients; training stops when it no longer helps them, and the best epoch is taken.
    begin : BeatNetwork, optional
        Pre-trained network of the same shape to begin from, its normalisation included.
    checkpoints : Checkpoints, optional
        Where the state is kept after each epoch, and resumed from.

    Returns
    -------
    Fitted
        The same for the same arguments, cut off and resumed or not.

    Raises
    ------
    ValueError
        If one of N, S, V has no beat.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    group = data.groups
    pools = [np.flatnonzero(group == 0), np.flatnonzero(group == 1), np.flatnonzero(group >= 2)]
    if not all(pool.size for pool in pools):
        raise ValueError("training needs beats of N, of S and of V: take more records")
    chances = [w / w.sum() for w in (data.weight[pool].astype(np.float64) for pool in pools)]
    counts = [int(settings["draws"] * share) for share in settings["shares"]]
    bits = class_bits(data.allowed)
    network = _network(data, settings, begin)
    batch, epochs = settings["batch"], settings["epochs"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["rate"], total_steps=epochs * (sum(counts) // batch)
    )
    made_of = key(settings, seed, data.features, data.allowed, data.weight, soft, begin is not None)
    losses: list[float] = []
    scores: list[float] = []
    best = copy.deepcopy(network.state_dict())
    if checkpoints is not None and (state := checkpoints.load(name, made_of)) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        set_random_state(rng, state["random"])
        losses, scores, best = state["losses"], state["held"], state["best"]
    while len(losses) < epochs and not _done(scores, settings.get("patience", epochs)):
        drawn = [rng.choice(p, n, p=c) for p, n, c in zip(pools, counts, chances, strict=True)]
        order = rng.permutation(np.concatenate(drawn))
        network.train()
        total = 0.0
        for at in range(0, len(order) - batch + 1, batch):
            index = np.sort(order[at : at + batch])
            images = torch.from_numpy(augment(data.images[index].astype(np.float32), rng))
            images = images.contiguous(memory_format=torch.channels_last)
            logits = network(torch.from_numpy(data.features[index]), images)
            value = loss(logits, bits[index], torch.ones(batch), settings["smoothing"])
            if soft is not None:
                value = (1 - settings["soften"]) * value + settings["soften"] * taught(logits, soft[index])
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            schedule.step()
            total += value.item()
        network.eval()
        losses.append(total / (len(order) // batch))
        if held is not None:
            scores.append(held_loss(network, held, settings["shares"]))
        if held is None or scores[-1] == min(scores):
            best = copy.deepcopy(network.state_dict())
        if checkpoints is not None:
            state = {
                "network": network.state_dict(), "optimizer": optimizer.state_dict(), "best": best,
                "schedule": schedule.state_dict(), "random": random_state(rng), "losses": losses, "held": scores,
            }  # fmt: skip
            checkpoints.save(name, made_of, state)
        if progress is not None:
            also = f", on held-out patients {scores[-1]:.4f}" if scores else ""
            progress(f"{name}, epoch {len(losses)} of {epochs}: loss {losses[-1]:.4f}{also}")
    network.load_state_dict(best)
    network.eval()
    taken = 1 + int(np.argmin(scores)) if scores else len(losses)
    return Fitted(network, taken, tuple(losses), tuple(scores))


def _network(data: Rows, settings: dict[str, Any], begin: BeatNetwork | None) -> BeatNetwork:
    mean = torch.from_numpy(data.features.mean(axis=0))
    scale = torch.from_numpy(np.maximum(data.features.std(axis=0), 1e-3))
    pieces = settings["shape"]["pieces"]
    some = data.features[:: max(1, len(data.features) // EDGE_ROWS)]
    edges = torch.from_numpy(np.quantile(some, np.linspace(0, 1, pieces + 1), axis=0).T.astype(np.float32).copy())
    network = BeatNetwork(mean, scale, len(CLASSES), settings["dropout"], settings["shape"], edges if pieces else None)
    if begin is not None:
        network.load_state_dict(begin.state_dict())
    return network


def _done(scores: list[float], patience: int) -> bool:
    return bool(scores) and len(scores) - 1 - int(np.argmin(scores)) >= patience


def class_bits(allowed: NDArray[np.uint8]) -> torch.Tensor:
    """Float32 tensor of shape (m, classes), 1 for the classes that each row's label leaves open."""
    return torch.from_numpy(((allowed[:, None] >> np.arange(len(CLASSES))) & 1).astype(np.float32))


def taught(logits: torch.Tensor, soft: NDArray[np.float32]) -> torch.Tensor:
    """Cross-entropy of the teacher's N (with F), S and V against the network's, whose finer classes are summed.

    Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """
    log_p = torch.log_softmax(logits, dim=1)
    summed = torch.stack([torch.logsumexp(log_p[:, list(some)], dim=1) for some in _SUMMED], dim=1)
    return -(torch.from_numpy(soft) * summed).sum(dim=1).mean()


def held_loss(network: BeatNetwork, held: Rows, shares: Sequence[float]) -> float:
    """Negative log-likelihood of rows, N, S and V weighing as in training."""
    logits = torch.from_numpy(network_logits(network, held.features, held.images))
    bits, group = class_bits(held.allowed), np.minimum(held.groups, 2)
    value = 0.0
    for number, share in enumerate(shares):
        some = np.flatnonzero(group == number)
        if some.size:
            value += share * float(loss(logits[some], bits[some], torch.from_numpy(held.weight[some]), 0.0))
    return value


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


def tree_probabilities(booster: lgb.Booster, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of N (with F), S and V, shape (m, TREE_CLASSES)."""
    return np.asarray(booster.predict(features, num_threads=1), np.float32).reshape(-1, TREE_CLASSES)
