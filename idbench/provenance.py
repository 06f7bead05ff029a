"""What a run was made with: source revision, package versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "idbench", "torch", "torchvision", "diffusers", "transformers", "accelerate",
    "facenet-pytorch", "insightface", "open_clip_torch", "onnxruntime", "av", "numpy", "scipy",
    "opencv-python", "opencv-python-headless", "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""Packages whose version may change what is generated or measured."""


def git_state() -> dict[str, Any]:
    """{"revision", "dirty"} of the checkout that holds the package; None outside of one."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True, text=True, timeout=10, check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # Installed somewhere inside another project's checkout is not a checkout of idbench.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"revision": None, "dirty": None}
    revision = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": None if status is None else bool(status)}


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def opencv_version() -> str:
    """Version of the installed OpenCV, whichever of its packages it came from."""
    found = package_versions()
    return next((found[name] for name in PACKAGES if "opencv" in name and name in found), "missing")


def cores() -> int:
    """Cores this process may use; macOS does not tell, there it is all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """System, processor, cores, memory, and the accelerator when torch is loaded already."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}", "processor": _processor(),
        "cores": cores(), "memory_gb": _memory_gb(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["accelerator"] = torch.cuda.get_device_name(0)
    return found


def peak_memory_gb() -> float | None:
    """Largest resident memory of this process so far, in GB; None where it is not known."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
