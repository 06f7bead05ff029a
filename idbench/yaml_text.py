"""YAML by libyaml, ten times as fast as PyYAML's own reader, where PyYAML was built with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from idbench.errors import UserError, explained

YAMLError = yaml.YAMLError
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str | bytes) -> Any:
    """Plain values of a YAML document. Raises YAMLError; ValueError: a date that is none;
    UnicodeDecodeError; RecursionError (without libyaml): nested too deep."""
    return yaml.load(text, Loader=LOADER)


def read(path: Path, what: str) -> Any:
    """The values of a YAML file, which errors call `what`. Raises UserError: it is missing, or no
    YAML in UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{what} is missing; check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text; save it as UTF-8.") from error
    with explained(f"{what} is not valid YAML", "correct it"):
        return parse(text)
