"""The one door to the compiler: sequential loops over samples, candidates and beats are compiled by numba.

The same source, uncompiled, is the plain twin: ``function.py_func`` of any kernel (see ``docs/decisions``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

ROOMS: Final = ("dsp", "inference")
"""Packages whose kernels call each other."""


def cache_folder() -> Path:
    """Name the folder of compiled kernels: one for each state of the sources.

    numba renews a kernel only when its own file changes, not when a kernel that it calls does; with the hash of all
    of them in the path nothing stale is ever loaded.

    Returns
    -------
    Path
        Below ``NUMBA_CACHE_DIR``, else below the user's cache.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ROOMS:
        for source in sorted((root / room).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    named = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rhythmwatch"
    return base / f"kernels-{digest.hexdigest()[:16]}"


numba.config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compile `function`, cached on disk, with IEEE arithmetic in the order written.

    Results then never depend on how the input was cut into chunks.

    Parameters
    ----------
    function : callable
        Plain Python over numpy arrays and records.

    Returns
    -------
    callable
        The compiled function, with the type of the original.
    """
    return cast(F, numba.njit(cache=True, fastmath=False, error_model="numpy")(function))
