"""Checkpoints of a training: the state after each epoch, and every fit that is done, in one folder.

A fit goes on from its last epoch with the state of optimiser, schedule and random numbers, so that a training that was
cut off and resumed gives the bytes of one that was not. Each file names what it was made of; another configuration or
other rows are refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import torch


class CheckpointError(ValueError):
    """A checkpoint is damaged, or of another configuration or other rows."""


def key(*parts: object) -> str:
    """Name what a fit is made of.

    Parameters
    ----------
    *parts : ndarray or object
        Arrays count by their bytes, all else by its ``repr``.

    Returns
    -------
    str
        SHA-256, hex.
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(repr(part).encode())
    return found.hexdigest()


class Checkpoints:
    """Folder of checkpoints, one file a fit.

    Parameters
    ----------
    folder : Path
        Made if it isn't there.
    resume : bool
        Go on from what lies there; without it, fits begin anew and write over it.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        self._resume = resume
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, made_of: str) -> dict[str, Any] | None:
        """Read the last state of a fit.

        Parameters
        ----------
        name : str
            Of the fit.
        made_of : str
            From `key`.

        Returns
        -------
        dict or None
            As it was saved; None where there is none to resume.

        Raises
        ------
        CheckpointError
            It is damaged or made of something else.
        """
        path = self._folder / f"{name}.pt"
        if not self._resume or not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
            same = state.pop("made_of") == made_of
        except Exception as error:  # torch raises many kinds for a file it can't read
            raise CheckpointError(f"{path} is damaged; delete it, or train without --resume") from error
        if not same:
            raise CheckpointError(
                f"{path} is of another configuration or other recordings; train without --resume to begin anew"
            )
        return state

    def save(self, name: str, made_of: str, state: dict[str, Any]) -> None:
        """Write the state of a fit in place of the last one; at no time is there half a file under its name."""
        path = self._folder / f"{name}.pt"
        fresh = path.with_suffix(".part")
        torch.save({**state, "made_of": made_of}, fresh)
        fresh.replace(path)

    def booster(self, name: str, made_of: str) -> lgb.Booster | None:
        """Read trees that are done; None where there are none to resume."""
        state = self.load(name, made_of)
        return None if state is None else lgb.Booster(model_str=state["trees"])

    def save_booster(self, name: str, made_of: str, booster: lgb.Booster) -> None:
        """Write trees that are done."""
        self.save(name, made_of, {"trees": booster.model_to_string()})


def random_state(rng: np.random.Generator) -> dict[str, Any]:
    """State of both sources of random numbers."""
    return {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}


def set_random_state(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    rng.bit_generator.state = state["numpy"]
    torch.set_rng_state(state["torch"])
