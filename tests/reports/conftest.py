"""What tests of reports share: a run folder, and one browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_runs import make_run

from .browser import Browser, browse


@pytest.fixture(scope="session")
def usual_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that all tests of a process share, and leave as it is."""
    return make_run(tmp_path_factory.mktemp("usual") / "runs" / "toy", fail=[2], missing=[3])


@pytest.fixture
def run_folder(usual_run: Path, tmp_path: Path) -> Path:
    """A copy of `usual_run` that a test may change."""
    return Path(shutil.copytree(usual_run, tmp_path / "runs" / "toy"))


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium takes seconds to start: one serves all tests of a process."""
    with browse(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The window without earlier errors; in its usual size and colours again after the test."""
    window.console_errors()
    yield window
    window.devtools("Emulation.clearDeviceMetricsOverride")
    window.devtools("Emulation.setEmulatedMedia", media="", features=[])
