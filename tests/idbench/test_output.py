"""What commands print is text: control characters of names never reach the terminal."""

from __future__ import annotations

import json

import pytest
from toy import World

from idbench.output import echo, visible, wrapped


def test_control_characters_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\x1b[2J\x07\r\x9b31mb\tc\nd")
    assert capsys.readouterr().out == "a\\u001b[2J\\u0007\\u000d\\u009b31mb\tc\nd\n"
    value = {"name": "\x1b\x9b"}
    assert json.loads(visible(json.dumps(value, ensure_ascii=False))) == value


@pytest.mark.parametrize("arguments", [
    ("table", "\x1b[31mrun"), ("run", "--model", "\x1b]0;x\x07", "--split", "single"),
    ("\x1b[31m",), ("table", "--\x1b[31m"),
])
def test_errors_name_what_was_typed(world: World, arguments: tuple[str, ...]) -> None:
    done = world.run(*arguments)
    assert done.returncode == 2 and "\x1b" not in done.stderr


def test_long_lines_break_between_words_and_never_in_a_command() -> None:
    text = "The weights are missing; run `idbench weights get published` and try again.\n  short"
    lines = wrapped(text, 34).split("\n")
    assert all(len(line) <= 34 for line in lines) and lines[-1] == "  short"
    assert any("`idbench weights get published`" in line for line in lines)
    assert " ".join(lines[:-1]) == text.partition("\n")[0]
    assert wrapped(text, 200) == text
