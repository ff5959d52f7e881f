"""Which records train and which test: the committed ``splits.toml``, and a hash that names a training set."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_SPLITS: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("splits.toml").read_text("utf-8"))

DS1: Final[tuple[str, ...]] = tuple(_SPLITS["mitdb"]["ds1"])
"""mitdb records that train (de Chazal 2004)."""

DS2: Final[tuple[str, ...]] = tuple(_SPLITS["mitdb"]["ds2"])
"""mitdb records that test; they never train, tune or calibrate."""

PACED: Final[tuple[str, ...]] = tuple(_SPLITS["mitdb"]["paced"])
"""mitdb records with paced beats: in neither set."""

VFDB_TEST: Final[tuple[str, ...]] = tuple(_SPLITS["vfdb"]["test"])
"""vfdb records that test; the others train."""

ONE_PERSON: Final = (("201", "202"),)
"""mitdb records of the same person, across DS1 and DS2."""


def challenge_test(name: str) -> bool:
    """Whether a record of the AF challenge 2017 (``A00001``) is a test record."""
    number = int.from_bytes(hashlib.sha256(name.encode("ascii")).digest(), "big")
    rule = _SPLITS["cinc2017"]
    return number % rule["modulus"] in rule["test"]


def training_hash(names: Iterable[str]) -> str:
    """SHA-256 (hex) of the sorted names of a training set, one ``database/name`` a line.

    Parameters
    ----------
    names : iterable of str
        As in ``mitdb/101``.

    Returns
    -------
    str
        The same for the same set in any order.
    """
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(names))).encode("utf-8")).hexdigest()
