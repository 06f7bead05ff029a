"""`idbench doctor`: is everything here that a run needs?"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np

from idbench.commands import options as opt
from idbench.embedded import entries, weight_path
from idbench.errors import UserError, describe, explained
from idbench.metrics.networks import weight_sources
from idbench.output import echo, echo_json
from idbench.prompts import suite_names
from idbench.published_weights import describe_file, published_weights
from idbench.registry import METRICS, MODELS
from idbench.suite import load_suite
from idbench.types import Video

NETWORKS = ("arcface", "curricularface", "viclip", "clip")

IMPORTED = (
    "accelerate", "av", "cv2", "diffusers", "facenet_pytorch", "matplotlib.pyplot", "numba",
    "onnxruntime", "open_clip", "pandas", "pyarrow.parquet", "scipy.optimize", "skimage", "torch",
    "torchvision", "transformers",
)
"""What runs and reports import; some need libraries of the system."""


def _python() -> str:
    return f"{sys.version.split()[0]} in {sys.prefix}"


def _packages() -> str:
    missing = []
    for line in requires("idbench") or []:
        if ";" in line:
            continue
        name = line.split(">")[0].split("=")[0].split("<")[0].strip()
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise UserError(f"Missing: {', '.join(missing)}; install with `pip install idbench`.")
    return f"all installed; torch {version('torch')}, diffusers {version('diffusers')}"


def _imports() -> str:
    for name in IMPORTED:
        hint = " or use opencv-python-headless" if name == "cv2" else ""
        with explained(
            f"{name} cannot be loaded",
            f"install the system library it names, reinstall the package{hint}",
        ):
            importlib.import_module(name)
    return f"{len(IMPORTED)} packages load"


def _weights() -> str:
    found = entries()
    if not found:
        raise UserError("There is no manifest of embedded weights; reinstall idbench.")
    size = sum(weight_path(name).stat().st_size for name in found)
    return f"{len(found)} files, {size / 1e6:.1f} MB, every sha256 matches the manifest"


def _suites() -> str:
    names = suite_names()
    if not names:
        raise UserError("There is no suite; reinstall idbench.")
    return ", ".join(f"{s.name} {s.version}" for s in map(load_suite, names))


def _registry() -> str:
    for registry in (METRICS, MODELS):
        for name in registry.targets():
            registry.load(name)
    return f"{len(MODELS.targets())} models and {len(METRICS.targets())} metrics load"


def _video() -> str:
    from idbench.video import read_video, write_video  # PyAV may be what is broken

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.mp4"
        write_video(path, Video(np.full((3, 64, 96, 3), 90, np.uint8), 8.0))
        frames = read_video(path).frames
    if frames.shape != (3, 64, 96, 3) or abs(int(frames.mean()) - 90) > 2:
        raise UserError("H.264 does not read back what was written; reinstall PyAV (`av`).")
    return "H.264 written and read"


def _disk() -> str:
    free = shutil.disk_usage(".").free / 1e9
    if free < 1:
        raise UserError(f"Only {free:.1f} GB of disk space are free here; free some space.")
    return f"{free:.0f} GB free here"


def _accelerator() -> str:
    if find_spec("torch") is None:
        raise UserError("torch is missing; install with `pip install idbench`.")
    import torch  # only now: what is missing or broken has been said

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (CPU is enough)"
    threads = torch.get_num_threads()
    return f"{name}; {threads} thread{'' if threads == 1 else 's'}"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python, "packages": _packages, "imports": _imports, "weights": _weights,
    "suites": _suites, "registry": _registry, "video": _video, "disk": _disk,
    "accelerator": _accelerator,
}


def _source(text: str) -> str:
    """Load the user's weights once: they fit, they run, and here is their sha256."""
    source = weight_sources.parse([text])[text.partition("=")[0]]
    loaded = source.load()
    size = source.file().stat().st_size
    found = [
        f"{name}, sha256 {sha256} ({describe_file(Path(name).name, sha256, size)})"
        for name, sha256 in source.hashes().items()
    ]
    providers = getattr(loaded, "providers", ())
    return "; ".join([*found, *([f"runs with {', '.join(providers)}"] if providers else [])])


@click.command()
@opt.sharing(opt.weights_option, opt.json_option)
def doctor(weights: tuple[str, ...], as_json: bool) -> int:
    """Check packages, weights (sha256), suites (checksums), video, disk and accelerator.

    With --weights, also load your own weight files into their networks.

    Exit codes: 0 all checks passed, 1 a check failed; its line says how to fix it.
    """
    found = []
    checks = dict(CHECKS)
    for text in published_weights(weights, NETWORKS):
        checks[f"weights {text.partition('=')[0]}"] = partial(_source, text)
    for name, check in checks.items():
        try:
            well, told = True, check()
        except (Exception, SystemExit) as error:
            well, told = False, describe(error)
        found.append({"check": name, "ok": well, "told": told})
        if not as_json:
            echo(f"{'ok   ' if well else 'FAIL '} {name}: {told}")
    ill = sum(not one["ok"] for one in found)
    if as_json:
        echo_json(found)
    else:
        echo(f"{ill} of {len(checks)} checks failed." if ill else "All checks passed.")
    return 1 if ill else 0
