"""Fixtures of the harness's tests; see tests/helpers/toy.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from once import once
from toy import World, install_plugin, make_suite

from idbench.reports import report_page

# Tests started in the background of a shell (`make test &`) inherit an ignored SIGINT,
# and so would the commands that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_drawing() -> Iterator[None]:
    """The figures of reports are drawn once for each content: here many reports are of one run.
    tests/reports draws every figure."""
    with pytest.MonkeyPatch.context() as patch:
        once(patch, report_page, "_figures")
        yield


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the third-party package `toy-plugin`."""
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    return make_suite(tmp_path / "tiny")


@pytest.fixture
def world(
    tmp_path: Path, plugin: Path, suite_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    """Commands run in `tmp_path`, with the plugin installed and the tiny suite there."""
    monkeypatch.syspath_prepend(str(plugin))
    path = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH")]))
    return World(tmp_path, suite_folder, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
