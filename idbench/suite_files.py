"""The files of a suite: what each may hold."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from idbench.stored import InsidePath, PlainName


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Change(_Strict):
    version: str
    changes: str


class SuiteFile(_Strict):
    """suite.yaml."""

    name: PlainName
    version: str
    description: str
    licence: str
    changelog: list[Change]
    splits: dict[PlainName, int]

    @pydantic.field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        # YAML reads an unquoted 1.0 as a number.
        return str(value) if isinstance(value, int | float) else value


class PromptRow(_Strict):
    """A line of prompts.jsonl."""

    prompt_id: str
    category: str
    prompt: str
    truth: dict[str, Any] = {}


class ReferenceRow(_Strict):
    kind: Literal["face", "garment", "background"]
    name: str
    file: InsidePath


class Identities(pydantic.RootModel[dict[str, dict[str, Any]]]):
    """identities.json: by name, whatever the suite's makers say of each."""


class SplitRow(_Strict):
    """A line of splits/NAME.jsonl."""

    prompt_id: str
    references: list[ReferenceRow] = pydantic.Field(min_length=1)
    truth: dict[str, Any] = {}
