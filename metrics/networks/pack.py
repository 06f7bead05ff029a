"""insightface packs (buffalo_l, antelopev2, buffalo_s, ...): ONNX models in a folder, by path.

Models are opened through insightface's model_zoo, which knows how each is fed; nothing is
downloaded. A session that does not run where it was asked to run is refused: onnxruntime falls
back to the CPU without a word, and the numbers then differ in the fourth decimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idbench.checkpoints import check_file
from idbench.embedded import WeightError
from idbench.files import sha256_json, sha256_once
from idbench.metrics.networks.batches import Batches, joined

BATCH = 64
"""Crops that run through a recogniser at once."""
CROP = 112
"""Side of the aligned crops that recognisers are given, pixels."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
DETECTION = ("det_*.onnx", "scrfd_*.onnx")
OTHER_TASKS = ("det_*.onnx", "scrfd_*.onnx", "1k3d68*", "2d106det*", "genderage*", "*inswapper*")
"""Files of a pack that are no recogniser: detectors, landmarks, attributes, swapping."""


def pack_file(folder: Path, task: str) -> Path:
    """The model of a pack folder for `detection` or `recognition`. Raises WeightError: no such
    folder, no such model in it, or several recognisers."""
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightError(
            f"There is no folder {folder}; pass the path of an insightface pack, such as "
            "models/buffalo_l."
        )
    if manifest := described(folder, task):
        check_file(manifest.path)
        return Path(manifest.path)
    if task == "detection":
        found = [path for pattern in DETECTION for path in sorted(folder.glob(pattern))]
        looked_for = " or ".join(DETECTION)
    else:
        found = [
            path for path in sorted(folder.glob("*.onnx"))
            if not any(path.match(pattern) for pattern in OTHER_TASKS)
        ]
        looked_for = "such as w600k_r50.onnx or glintr100.onnx"
    if not found:
        inner = sorted({path.parent for path in folder.glob("*/*.onnx")})
        hint = f"it may be {inner[0]}" if inner else (
            "pass the folder of a complete insightface pack such as buffalo_l"
        )
        raise WeightError(f"There is no {task} model ({looked_for}) in {folder}; {hint}.")
    if task == "recognition" and len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise WeightError(f"{folder} contains several recognisers ({names}); keep one.")
    check_file(found[0])
    return found[0]


def described(folder: Path, task: str) -> Any:
    """What insightface 2's manifest of a pack says of a task; None without such a manifest.
    Raises WeightError: a manifest that cannot be used."""
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        return None
    try:
        from insightface.model_zoo.package_manifest import (
            has_model_package_manifest,
            load_model_package,
        )
    except ImportError as error:
        raise WeightError(
            f"{folder} has a manifest.json, which needs insightface 2; upgrade insightface."
        ) from error
    try:
        if not has_model_package_manifest(folder):
            return None
        found = load_model_package(folder).tasks.get(task)
    except (TypeError, ValueError, OSError) as error:
        raise WeightError(
            f"The manifest.json of {folder} cannot be used ({error}); unpack the pack again."
        ) from error
    size = found.metadata.get("input_size", (CROP, CROP)) if found else (CROP, CROP)
    if tuple(size) != (CROP, CROP):
        raise WeightError(
            f"{found.path} takes crops of {size[0]} x {size[1]} pixels, idbench cuts {CROP} x "
            f"{CROP}; use another pack."
        )
    return found


def pack_hash(folder: Path, task: str) -> str:
    """sha256 of a pack's model, and of the preprocessing that its manifest asks for.
    Raises WeightError: as `pack_file`."""
    digest, task_of_manifest = sha256_once(pack_file(folder, task)), described(folder, task)
    if task_of_manifest is None:
        return digest
    asked = task_of_manifest.metadata["preprocessing"]
    return sha256_json([digest, asked if isinstance(asked, str) else dict(asked)])


def open_model(folder: Path, task: str, device: str) -> Any:
    """insightface's model of a pack, running on `device` and nowhere else.
    Raises WeightError: damaged; for another task; or onnxruntime cannot run it on `device`."""
    import onnxruntime
    import torch
    from insightface.model_zoo import get_model

    path, manifest = pack_file(folder, task), described(folder, task)
    wanted = wanted_providers(device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # On a CPU one thread a source, as everywhere: more would round differently.
    options.intra_op_num_threads = 1 if wanted == [CPU] else torch.get_num_threads()
    asked: list[Any] = list(wanted)
    _, _, index = device.partition(":")
    if wanted[0] == CUDA and index:
        asked[0] = (CUDA, {"device_id": int(index)})
    try:
        more = {"model_descriptor": manifest} if manifest else {}
        model = get_model(str(path), providers=asked, sess_options=options, **more)
    except Exception as error:  # protobuf, onnx and onnxruntime each have their own
        first = str(error).strip().splitlines()[0][:120] if str(error).strip() else ""
        raise WeightError(
            f"{path} is not an ONNX model that insightface can open ({type(error).__name__}: "
            f"{first}); unpack the pack again."
        ) from error
    found = getattr(model, "taskname", "something else")
    if found != task:
        raise WeightError(f"{path} is a model for {found}, not for {task}; check the pack.")
    check_providers(path, wanted, model.session.get_providers())
    return model


def wanted_providers(device: str) -> list[str]:
    """onnxruntime's execution providers for a torch device."""
    return [CUDA, CPU] if device.startswith("cuda") else [CPU]


def check_providers(path: Path, wanted: Sequence[str], actual: Sequence[str]) -> None:
    """Refuse a session that runs elsewhere than asked. Raises WeightError: says what was asked and
    what is there."""
    if list(actual) != list(wanted):
        raise WeightError(
            f"onnxruntime runs {path.name} with {', '.join(actual)} where {', '.join(wanted)} "
            "was asked for; install onnxruntime-gpu for this CUDA, or use the CPU."
        )


class PackRecogniser:
    """The recogniser of an insightface pack: aligned crops to embeddings of length 1. `providers`:
    the execution providers it runs with. Raises WeightError: as `pack_file` and `open_model`."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.file = pack_file(folder, "recognition")
        self._model = open_model(folder, "recognition", device)
        self.providers = tuple(self._model.session.get_providers())
        rows = self._model.input_shape[0]
        self._rows = rows if isinstance(rows, int) and rows > 0 else None
        self.batches = Batches(self._rows or BATCH)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """uint8 RGB aligned crops (n, 112, 112, 3) to float32 (n, d) of length 1."""

        def run(start: int, end: int) -> np.ndarray:
            part = np.asarray(crops[start:end])
            if self._rows and end - start < self._rows:  # the model has a fixed batch size
                more = self._rows - (end - start)
                part = np.concatenate([part, np.repeat(part[-1:], more, axis=0)])
            # insightface takes BGR images and swaps the channels itself.
            vectors = self._model.get_feat([np.ascontiguousarray(c[..., ::-1]) for c in part])
            return np.asarray(vectors, np.float32)[: end - start]

        vectors = joined(self.batches.run(run, len(crops)))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
