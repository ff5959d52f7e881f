"""What a model needs from the code that feeds it, written into the model file itself.

The contract is JSON in the ONNX metadata under `KEY`. The runtime compares it with what it can deliver and refuses a
model that it can't feed: a wrong hop or a feature out of order would not crash, it would only be wrong.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

KEY: Final = "rhythmwatch"
"""Metadata key of the contract in an ONNX file."""

FORMAT: Final = 1
"""Version of the JSON; another one is refused."""


class ContractError(ValueError):
    """A model's contract is missing, damaged, or asks for what the runtime doesn't deliver."""


@dataclass(frozen=True, slots=True)
class Image:
    """The spectral image of one row.

    Attributes
    ----------
    hop, window : int
        Samples from column to column, and in one column.
    bins : int
        Frequency bins from the lowest kept one.
    before, after : int
        Columns before the one that is nearest to the anchor (R peak, end of window), and from it on.
    channels : tuple of str
        What each channel holds, in order.
    scaling : str
        What magnitudes are divided by, and how they are compressed.
    """

    hop: int
    window: int
    bins: int
    before: int
    after: int
    channels: tuple[str, ...]
    scaling: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, bins, columns)."""
        return len(self.channels), self.bins, self.before + self.after


@dataclass(frozen=True, slots=True)
class Contract:
    """Contract of one model.

    Attributes
    ----------
    model : str
        What it classifies: ``beat``, ``rhythm``.
    version : str
        Version of the model, for people and for records of its verdicts.
    rate : int
        Sampling rate of the analysed signal, Hz.
    classes : tuple of str
        Names of the outputs, in order.
    features : tuple of str
        Names of the feature columns, in order; raw values go in, the graph normalises them.
    mean, scale : tuple of float
        The normalisation inside the graph, one each per feature (empty: none).
    temperature : float
        Logits are divided by it for calibrated probabilities (1: as they come).
    training : str
        SHA-256 over the names of the training records (`inference.training.splits.training_hash`).
    image : Image or None
        The spectral image, if the model takes one.
    """

    model: str
    version: str
    rate: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    temperature: float = 1.0
    training: str = ""
    image: Image | None = None


def to_json(contract: Contract) -> str:
    """Serialise `contract` for the metadata of an ONNX file.

    Parameters
    ----------
    contract : Contract

    Returns
    -------
    str
        JSON with sorted keys, so that equal contracts give equal text.
    """
    return json.dumps({"format": FORMAT, **asdict(contract)}, sort_keys=True)


def from_json(text: str) -> Contract:
    """Read a contract and check its types and lengths.

    Parameters
    ----------
    text : str
        JSON as `to_json` writes it.

    Returns
    -------
    Contract

    Raises
    ------
    ContractError
        Not JSON, another format version, a field missing, unknown or of the wrong type.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"the model's contract is not JSON ({error}); export the model again") from error
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ContractError(f"the model's contract is not of format {FORMAT}; use a model made for this version")
    image = raw.pop("image", None)
    contract: Contract = _build(Contract, {**raw, "image": None if image is None else _build(Image, image)})
    count = len(contract.features)
    if len(contract.mean) not in (0, count) or len(contract.scale) != len(contract.mean):
        raise ContractError(f"the model's contract has {count} features but {len(contract.mean)} means")
    if not (math.isfinite(contract.temperature) and contract.temperature > 0):
        raise ContractError(f"the model's temperature is {contract.temperature}; it must be above 0")
    return contract


def check(
    contract: Contract,
    *,
    model: str,
    rate: int,
    classes: tuple[str, ...],
    features: tuple[str, ...],
    image: Image | None = None,
) -> None:
    """Refuse a model whose contract the caller can't meet.

    Parameters
    ----------
    contract : Contract
        What the model asks for.
    model, rate, classes, features, image
        What the caller delivers and expects.

    Raises
    ------
    ContractError
        One line that names the first thing that differs, both values of it, and what to do.
    """
    offered = {"model": model, "rate": rate, "classes": classes, "image": image}
    for name, value in offered.items():
        wanted = getattr(contract, name)
        if wanted != value:
            raise ContractError(
                f"the model asks for {name} = {wanted!r}, this version has {value!r}; train it again or use its version"
            )
    if contract.features != features:
        missing = [name for name in contract.features if name not in features]
        what = f"{missing[:3]} not known here" if missing else "their number or order differs"
        raise ContractError(f"the model asks for other features ({what}); train it again or use its version")


def _build(kind: type[Any], raw: object) -> Any:
    if not isinstance(raw, dict):
        raise ContractError(f"the model's contract holds no object for {kind.__name__}")
    known = {field.name: str(field.type) for field in fields(kind)}
    if unknown := sorted(set(raw) - set(known)):
        raise ContractError(f"the model's contract has an unknown field {unknown[0]!r}")
    if missing := sorted(set(known) - set(raw)):
        raise ContractError(f"the model's contract lacks the field {missing[0]!r}")
    return kind(**{name: _typed(name, known[name], value) for name, value in raw.items()})


def _typed(name: str, declared: str, value: object) -> object:
    if declared.startswith("tuple"):
        inner: Any = str if "str" in declared else float
        if isinstance(value, list) and all(_is(item, inner) for item in value):
            return tuple(inner(item) for item in value)
    elif declared == "float" and _is(value, float):
        return float(value)  # type: ignore[arg-type]
    elif declared.startswith("Image") or type(value).__name__ == declared:
        return value
    raise ContractError(f"the model's contract has a wrong value for {name!r}: {value!r}")


def _is(value: object, kind: type[str] | type[float]) -> bool:
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)
