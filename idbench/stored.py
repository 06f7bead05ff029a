"""Files as pydantic models: one class is both what is in memory and what is on disk.

Every file that idbench writes and reads back has a subclass of `Stored`. `read` and `write` are the
only way to the disk, so that a damaged file is one sentence wherever it is read.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from idbench.errors import UserError
from idbench.files import write_text
from idbench.names import suggestion

Model = TypeVar("Model", bound=BaseModel)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Any JSON object; NaN and infinity, which JSON does not have, are refused."""


def _inside(text: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",) or "\0" in text:
        raise ValueError("it must be a path inside the folder, without '..'")
    return text


def _plain(text: str) -> str:
    if text in ("", ".", "..") or set(text) & set("/\\\0"):
        raise ValueError("it must be a plain name, without '/'")
    return text


InsidePath = Annotated[str, AfterValidator(_inside)]
"""A relative path that stays inside the folder of the file that names it."""
PlainName = Annotated[str, AfterValidator(_plain)]
"""A name that can be that of a file or folder."""


class Part(BaseModel):
    """A part of a stored file. Fields of later versions are kept, not refused."""

    model_config = ConfigDict(
        extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=(),
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True,
    )


class Stored(Part):
    """A JSON file. `SCHEMA`: the newest version this idbench reads; `FIX`: what a user can do about
    a damaged file, as the end of a sentence; `INDENT`: None, where a file of many numbers has one
    line."""

    SCHEMA: ClassVar[int] = 1
    FIX: ClassVar[str] = "restore it or remove it"
    INDENT: ClassVar[int | None] = 2

    schema_: int = Field(1, alias="schema", ge=1, description="version of this form")

    @field_validator("schema_")
    @classmethod
    def _known(cls, version: int) -> int:
        if version > cls.SCHEMA:
            raise PydanticCustomError(
                "newer_schema", "was written by a newer idbench (schema {found}, this one reads "
                "up to {known}); update idbench", {"found": version, "known": cls.SCHEMA},
            )
        return version

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`. Raises UserError, naming file and field: missing, unreadable, no
        JSON, of a newer idbench, or with a wrong field."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
        return validate(cls, data, path, cls.FIX)

    def json_text(self) -> str:
        """The JSON text, as `write` writes it."""
        return self.model_dump_json(indent=self.INDENT) + "\n"

    def write(self, path: Path, wait: bool = True) -> None:
        """Write the file atomically; `wait` as in `files.write_bytes`."""
        write_text(path, self.json_text(), wait)


def validate(model: type[Model], value: Any, where: object, fix: str = "correct it") -> Model:
    """`value`, or the JSON text in its bytes, as `model`. Raises UserError: the first fault, with
    `where` and the field."""
    try:
        if isinstance(value, bytes):
            return model.model_validate_json(value)
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(_explain(error, where, model, fix)) from error


def _explain(error: ValidationError, where: object, model: type[BaseModel], fix: str) -> str:
    """The first fault of a validation as one sentence."""
    # A misspelt field is both unknown and missing: the first says more.
    fault = min(error.errors(), key=lambda f: f["type"] != "extra_forbidden")
    # Without the kinds of a union, such as `list[str]`, which pydantic adds.
    name = ".".join(str(part) for part in fault["loc"] if "[" not in str(part))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "json_invalid":
        return f"{where} is not valid JSON ({message.removeprefix('Invalid JSON: ')}); {fix}."
    if fault["type"] == "newer_schema":
        return f"{where} {message}."
    if fault["type"] == "extra_forbidden":
        known = model.model_fields
        hint = suggestion(str(fault["loc"][-1]), known, f"known are {', '.join(known)}.")
        return f"{where} has an unknown field {name!r}: {hint}"
    if fault["type"] == "missing":
        return f"{where} has no field {name!r}; {fix}."
    if not name:
        return f"{where} is damaged ({message}); {fix}."
    return f"{where}: the field {name!r} is wrong ({message[:1].lower()}{message[1:]}); {fix}."
