"""Every field of a model, and every wrong value that a file may hold in its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

Place = tuple[str | int, ...]
MARK = "@@attacked@@"
VALUES = {
    "missing": "", "list": "[]", "mapping": "{}", "text": '"text"', "number": "5",
    "negative": "-1", "true": "true", "null": "null", "infinity": "1e999", "nan": "NaN",
    "huge": "9" * 400, "nested": "[" * 3000 + "]" * 3000,
    "list of null": "[null]", "mapping of null": '{"x": null}',
}
"""Name -> JSON text put in a field's place; missing: the field is taken out."""
FILES = {
    "empty": b"", "no UTF-8": b"\xff\xfe\x00{", "list": b"[]", "null": b"null", "text": b'"x"',
    "mapping": b"{}", "deep": b'{"a":' * 5000, "zeros": bytes(100),
}
"""Name -> content of a whole file."""


def places(model: type[BaseModel], value: Any, where: Place = ()) -> Iterator[Place]:
    """The place of every field of `model`, in nested models and in the first item of containers.

    Found from `model_fields`, so that a new field is attacked without a new line.
    """
    if not isinstance(value, dict):
        return
    for name, field in model.model_fields.items():
        here = (*where, field.alias or name)
        yield here
        nested = value.get(here[-1])
        inner = next(iter(_models(field.annotation)), None)
        if inner is not None and isinstance(nested, dict) and set(nested) & set(_names(inner)):
            yield from places(inner, nested, here)
            continue
        while isinstance(nested, list | dict) and nested:
            key: str | int = 0 if isinstance(nested, list) else next(iter(nested))
            here, nested = (*here, key), nested[key]  # type: ignore[index]
            yield here
            if inner is not None and isinstance(nested, dict):
                yield from places(inner, nested, here)
                break


def changed(value: Any, place: Place, name: str) -> bytes:
    """The JSON text of `value` with the wrong value of that name at `place`."""
    value = copy.deepcopy(value)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    if name != "missing":
        holder[place[-1]] = MARK
    elif isinstance(holder, list):
        del holder[place[-1]]
    else:
        holder.pop(place[-1], None)
    return json.dumps(value).replace(f'"{MARK}"', VALUES[name]).encode()


def extras(value: Any, where: str = "") -> list[str]:
    """The keys in a stored file that its model, and so its JSON Schema, does not describe."""
    found: list[str] = []
    if isinstance(value, BaseModel):
        found += [f"{where}.{name}" for name in value.model_extra or ()]
        parts = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        parts = value
    else:
        parts = dict(enumerate(value)) if isinstance(value, list | tuple) else {}
    for name, part in parts.items():
        found += extras(part, f"{where}.{name}")
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
