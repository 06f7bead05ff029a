"""Processes that begin together compile the avatars once."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from idbench.prompts.avatars import render


def test_the_first_frame_waits_for_a_process_that_compiles_and_later_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frame:
        stats = SimpleNamespace(cache_path=str(tmp_path))

        def __call__(self, height: int) -> int:
            return 2 * height

    monkeypatch.setattr(render.march, "render_frame", Frame())
    made: list[object] = []
    lock = FileLock(tmp_path / "render_frame.lock")
    with lock:
        waiting = threading.Thread(target=lambda: made.append(render.render_frame(3)))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and not made
    waiting.join(10)
    assert made == [6]
    with lock:
        assert render.render_frame(4) == 8
