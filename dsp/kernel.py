"""The one door to the compiler: sequential loops over samples, candidates and beats are compiled by numba.

The same source, uncompiled, is the plain twin: ``function.py_func`` of any kernel (see ``docs/decisions``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


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
