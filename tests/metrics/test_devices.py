"""Networks on a device that is not the CPU: `meta`, on which a forgotten input is an error."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from idbench import devices
from idbench.engines import LocalEngine, make_engine
from idbench.errors import UserError, is_out_of_memory
from idbench.metrics.faces.crops import find_faces
from idbench.metrics.faces.detect import Mtcnn
from idbench.metrics.networks.batches import Batches
from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder
from idbench.metrics.networks.pack import CPU, CUDA, wanted_providers
from idbench.metrics.networks.parser import FaceParser
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import get_protocol
from idbench.metrics.scorer import Scorer

STRICT = get_protocol("strict-v1")
FRAMES = np.random.default_rng(0).integers(0, 255, (8, 64, 96, 3), dtype=np.uint8)


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> str:
    """The device `meta` computes shapes, and mixes with no other; zeros come back from it."""
    real = torch.Tensor.cpu

    def cpu(self: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self.shape, dtype=self.dtype) if self.is_meta else real(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    return "meta"


@pytest.mark.parametrize("run", [
    lambda device: Recogniser("arcface", device).embed(FRAMES[:3, :64, :64]),
    lambda device: Recogniser("curricularface", device).embed(FRAMES[:3, :64, :64]),
    lambda device: ClipEmbedder(device=device).pictures(FRAMES, STRICT.clip_picture),
    lambda device: ClipEmbedder(device=device).texts(["a man smiles"]),
    lambda device: ViclipEmbedder(device=device).video(FRAMES, STRICT.video_picture)[None],
    lambda device: ViclipEmbedder(device=device).texts(["a man smiles"]),
    lambda device: FaceParser(device=device).probabilities(FRAMES[:2, :64, :64]),
])
def test_every_input_of_a_network_is_on_its_device(meta: str, run) -> None:
    found = run(meta)
    assert found.dtype == np.float32 and not found.any(), "it did not run on the device"


def test_frames_are_searched_for_faces_on_the_device() -> None:
    detector = Mtcnn(device="meta")
    network = detector._network
    for part in (network.pnet, network.rnet, network.onet):
        assert {p.device.type for p in part.parameters()} == {"meta"}
    seen: list[str] = []

    def stop(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].device.type)
        raise InterruptedError

    network.pnet.register_forward_pre_hook(stop)
    with pytest.raises(InterruptedError):
        find_faces(detector, FRAMES, STRICT.detection)
    assert seen == ["meta"]


def test_a_scorer_loads_all_networks_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "check_device", lambda device: None)
    asked = {}
    monkeypatch.setattr(
        "idbench.metrics.networks.loader.make_detector",
        lambda detection, device, pack: asked.update(detector=device))
    monkeypatch.setattr(
        "idbench.metrics.networks.weight_sources.Source.load",
        lambda self, device: asked.update({self.name: device}))
    scorer = Scorer(device="cuda:1")
    for name in ("detector", "arcface", "curricularface", "clip", "viclip"):
        scorer.embedder.network(name)
    assert asked == dict.fromkeys(asked, "cuda:1") and len(asked) == 5
    assert scorer.embedder.devices() == ["cuda:1"] and scorer.embedder.threads == 1
    assert Scorer(device="cpu").embedder.devices() == [], "nothing has run yet"
    assert wanted_providers("cuda:1") == [CUDA, CPU] and wanted_providers("cpu") == [CPU]


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert LocalEngine(1).device == device
    for name in ("gpu", "cuda:", "cuda:x", "", "cpu:0"):
        with pytest.raises(UserError, match="use auto, cpu, cuda, cuda:N or mps"):
            make_engine("local", device=name)


@pytest.mark.parametrize("error", [
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
    torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
])
def test_a_full_memory_halves_the_batch(error: BaseException) -> None:
    batches, sizes = Batches(8), []

    def part(start: int, end: int) -> list[int]:
        sizes.append(end - start)
        if end - start > 3:
            raise error
        return list(range(start, end))

    assert sum(batches.run(part, 7), []) == list(range(7))
    assert sizes == [7, 4, 2, 2, 2, 1] and batches.size == 2 and batches.halved
    sizes.clear()
    batches.run(part, 4)
    assert sizes == [2, 2], "it stays small"
    assert is_out_of_memory(error)


def test_what_a_network_had_computed_is_gone_before_memory_is_freed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, freed = [], []

    def part(start: int, end: int) -> None:
        tensor = torch.zeros(3)
        computed.append(weakref.ref(tensor))
        if end - start > 1:
            raise MemoryError

    monkeypatch.setattr(
        "idbench.metrics.networks.batches._free", lambda: freed.append(computed[-1]() is None))
    Batches(4).run(part, 4)
    assert freed == [True, True]


def test_what_does_not_fit_alone_and_other_errors_are_raised() -> None:
    def full(start: int, end: int) -> None:
        raise MemoryError

    def wrong(start: int, end: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(MemoryError):
        Batches(4).run(full, 3)
    batches = Batches(4)
    with pytest.raises(RuntimeError, match="shapes"):
        batches.run(wrong, 3)
    assert not batches.halved


def test_a_halved_batch_is_noted_with_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(device="cpu")
    clip = scorer.embedder.network("clip")
    before = len(scorer.notes)
    clip.batches.size, clip.batches.halved = 16, True
    assert len(scorer.notes) == before + 1
    assert "clip ran in batches of 16 because the memory was full" in scorer.notes[-1]
