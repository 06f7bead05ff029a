"""A folder where a file belongs, the reverse, and a library that cannot be loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import World

PLACES = {
    ".lock": "folder", ".holder": "folder", "run.json": "folder", "samples": "file",
    "references": "file", "embeddings": "file", "scores.parquet": "folder", "errors.log": "folder",
    "samples/*": "file", "samples/*/video.mp4": "folder", "samples/*/sample.json": "folder",
    "samples/*/scores.json": "folder", "samples/*/faces.json": "folder",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[World]:
    """A finished run of two samples, in `whole`."""
    from toy import make_suite

    folder = tmp_path_factory.mktemp("odd")
    world = World(folder, make_suite(folder / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin))
        assert world.run(*world.toy("--limit", "2")).returncode == 0
        (folder / "out").rename(folder / "whole")
        yield world


def replaced(path: Path, kind: str) -> None:
    """Put a folder, a file or a loop of links where something else was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["odd", "loop"])
@pytest.mark.parametrize("place", PLACES)
def test_what_lies_in_a_run_folder_is_never_a_traceback(
    finished: World, place: str, kind: str
) -> None:
    out = finished.folder / "out"
    commands = (
        finished.toy("--limit", "2"), finished.toy("--limit", "3"),
        ["score", "out", "--metric", "sampled", "--force"], ["table", "out"],
        ["report", "out", "-o", "page.html"], finished.toy("--limit", "2", "--force"),
    )
    for command in commands:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(finished.folder / "whole", out)
        path = next(iter(sorted(out.glob(place))), out / place)
        replaced(path, PLACES[place] if kind == "odd" else "loop")
        done = finished.run(*command)
        told = (command[:2], done.returncode, done.stderr)
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, told
        if done.returncode == 2:
            assert done.stderr.splitlines()[-1].startswith("Error: "), told


def test_opencv_that_lacks_a_library_is_one_sentence(world: World) -> None:
    """As on servers without libGL: what runs import, `doctor` imports."""
    (world.folder / "block").mkdir()
    (world.folder / "block/cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')")
    path = f"{world.folder / 'block'}{os.pathsep}{world.environment['PYTHONPATH']}"
    run = [a if a != "sampled" else "arcsim" for a in world.toy("--limit", "1")]
    done = world.apart(*run, PYTHONPATH=path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "libGL.so.1" in done.stderr and "idbench doctor" in done.stderr
    found = world.apart("doctor", PYTHONPATH=path)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "FAIL  imports: cv2 cannot be loaded (libGL.so.1" in found.stdout
