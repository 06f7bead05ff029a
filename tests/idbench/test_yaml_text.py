"""YAML is read by libyaml, and what is no YAML is refused as before."""

from __future__ import annotations

import pytest
import yaml

from idbench import yaml_text


def test_libyaml_reads_where_there_is_one() -> None:
    if yaml.__with_libyaml__:
        assert yaml_text.LOADER is yaml.CSafeLoader
    assert yaml_text.parse("a: [1, 2.5, yes, 2020-01-01]\nb: é") == yaml.safe_load(
        "a: [1, 2.5, yes, 2020-01-01]\nb: é")


@pytest.mark.parametrize("text", [
    "a: [1", "a: b: c", "a: !!python/object/apply:os.system [ls]", "x: *no", b"a: \xff",
    "[" * 100_000,
])
def test_what_is_no_plain_yaml_is_refused(text: str | bytes) -> None:
    with pytest.raises((yaml_text.YAMLError, UnicodeDecodeError, RecursionError)):
        yaml_text.parse(text)
