"""Answers described for OpenAPI: pydantic models of the structs that the stores give."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel, create_model


@cache
def model_of(struct: type[msgspec.Struct], name: str = "") -> type[BaseModel]:
    """Give the model that describes a struct, and the structs within it, by the same fields.

    Parameters
    ----------
    struct : type
    name : str
        Under which it is documented; that of the struct without it.
    """
    hints = get_type_hints(struct)
    fields: Mapping[str, Any] = {
        field.name: (_described(hints[field.name]), ...) for field in msgspec.structs.fields(struct)
    }
    return create_model(name or struct.__name__, __doc__=(struct.__doc__ or "").split("\n")[0], **fields)


def _described(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return model_of(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return reduce(or_, (_described(item) for item in inner))
    if origin in (list, dict, tuple):
        return origin[tuple(item if item is ... else _described(item) for item in inner)]
    return kind
