"""`--weights`: how sources are named, what a bad file costs, and what a run records of them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_pack import make_pack
from toy import World

from idbench import embedded
from idbench.checkpoints import fit, read_state
from idbench.differences import metric_weight_differences
from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import sha256_file
from idbench.metrics.networks import weight_sources
from idbench.metrics.networks.recogniser import build_recogniser
from idbench.metrics.protocols import get_protocol
from idbench.metrics.scorer import Scorer
from idbench.registry import METRICS
from idbench.scoring import Scoring
from idbench.types import Video
from idbench.video import write_video

from .conftest import CURRICULARFACE

MIDDLE = {**CURRICULARFACE, "middle_norm": True}


class _Runs:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return os.mkdir, ("it-was-run",)


def _write(path, kind):
    state = build_recogniser(MIDDLE).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    data = path.read_bytes()
    if kind == "code":
        torch.save({"a": _Runs()}, path)
    elif kind == "network":
        torch.save(build_recogniser(MIDDLE), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(_Runs()))
    elif kind == "numbers":
        torch.save({"epoch": 3, "loss": torch.tensor(1.0)}, path)
    elif kind == "script":
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    else:
        path.write_bytes({
            "empty": b"", "cut": data[: len(data) // 2], "html": b"<html>not found</html>",
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        }[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", "is empty"), ("cut", "damaged or truncated"), ("html", "is not a checkpoint"),
        ("pointer", "Git LFS pointer"), ("code", "contains Python objects.* was not opened"),
        ("network", "contains Python objects.* was not opened"),
        ("pickle", "was not opened|is not a checkpoint"), ("numbers", "contains no state dict"),
        ("script", "TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_no_plain_state_dict_is_refused_and_never_run(
    tmp_path, monkeypatch, kind, sentence
):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "weights.bin", kind)
    with pytest.raises(WeightError, match=sentence) as error:
        read_state(path)
    assert "weights.bin" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "it-was-run").exists()


def test_wrapped_and_prefixed_state_dicts_and_safetensors_are_read(tmp_path):
    network = build_recogniser(MIDDLE).eval()
    state = network.state_dict()
    torch.save({"model": {f"module.{k}": v.half() if v.is_floating_point() else v
                          for k, v in state.items()}}, tmp_path / "half.pth")
    # The counters of batch norms move no number; older files have none.
    kept = {k: v for k, v in state.items() if "num_batches" not in k}
    save_file(kept, tmp_path / "a.safetensors")
    x = torch.randn(2, 3, 32, 32)
    for name, tolerance in (("half.pth", 2e-2), ("a.safetensors", 1e-6)):
        with torch.device("meta"):
            empty = build_recogniser(MIDDLE)
        path = tmp_path / name
        found = fit(empty, read_state(path), path, "IR")
        assert all(v.dtype == torch.float32 for v in found.parameters())
        torch.testing.assert_close(found(x), network(x), atol=tolerance, rtol=tolerance)


def test_a_damaged_safetensors_file_is_one_sentence(tmp_path):
    save_file({"a": torch.zeros(500)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:900])
    with pytest.raises(WeightError, match="a.safetensors is damaged or truncated"):
        read_state(tmp_path / "a.safetensors")


def test_a_checkpoint_of_other_shapes_or_names_says_the_first_difference(tmp_path):
    path = tmp_path / "w.pth"
    state = build_recogniser(MIDDLE).state_dict()
    for change, sentence in (
        ({"output_layer.3.bias": torch.zeros(7)}, r"bias has shape \(7,\), the network"),
        ({"head.weight": torch.zeros(3)}, "it holds 1 tensor .head.weight. that are unknown"),
    ):
        with pytest.raises(WeightError, match=sentence):
            fit(build_recogniser(MIDDLE), {**state, **change}, path, "IR")
    # The first code's layout, without the norm in the middle of a block, does not fit by chance.
    old = build_recogniser(CURRICULARFACE).state_dict()
    with pytest.raises(WeightError, match="it lacks .* tensors .body.0.res_layer"):
        fit(build_recogniser(MIDDLE), old, path, "IR")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("arcface", "is not NETWORK=SOURCE"),
        ("arcfce=insightface:x", "did you mean 'arcface'"),
        ("arcface=buffalo_l", "is not insightface:FOLDER or embedded"),
        ("arcface=insightface:", "is not insightface:FOLDER"),
        ("arcface=insightface:nowhere", "There is no folder nowhere"),
        ("viclip=viclip:nowhere.pth", "The weight file nowhere.pth is missing"),
        ("viclip=viclip:.", "is a folder"),
        ("clip=open_clip:file.pt", "is not open_clip:NAME:FILE"),
        ("clip=open_clip:ViT-B-33:x.pt", "did you mean 'ViT-B-32'"),
        ("detector=embedded", "is not insightface:FOLDER"),
    ],
)
def test_a_mistake_in_weights_is_one_sentence(tiny_weights, tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        weight_sources.parse([text])


def test_naming_a_network_twice_is_refused(tiny_weights):
    with pytest.raises(UserError, match="names clip twice"):
        weight_sources.parse(["clip=embedded", "clip=embedded"])


def test_the_key_is_of_what_the_file_holds_not_where_it_lies(tiny_weights, tmp_path):
    first = make_pack(tmp_path / "one" / "buffalo_l")
    same = shutil.copytree(first, tmp_path / "elsewhere")
    other = make_pack(tmp_path / "other", seed=1)
    strict = get_protocol("strict-v3")
    pack = replace(strict, detection=replace(strict.detection, detector="pack"))

    def key(*weights, protocol=pack):
        return Scoring(protocol, ("arcsim",), (), weight_sources.parse(weights)).key

    embedded_key = key()
    assert embedded_key["weights"]["arcface"] == embedded.entry("arcface")["sha256"]
    one = key(f"arcface=insightface:{first}")
    assert one == key(f"arcface=insightface:{same}")
    assert one["weights"]["arcface"] == f"insightface:{sha256_file(first / 'w600k_r50.onnx')}"
    assert sha256_file(first / "det_10g.onnx") in one["detector"]
    assert one["weights"]["clip"] == embedded_key["weights"]["clip"]
    changed = key(f"arcface=insightface:{other}")
    assert changed["weights"]["arcface"] != one["weights"]["arcface"]
    assert len({str(k["detector"]) for k in (embedded_key, one, changed)}) == 3
    # Where the protocol asks for MTCNN, a pack's detector moves nothing.
    assert strict.detection.detector == "mtcnn"
    with_pack = key(f"arcface=insightface:{first}", protocol=strict)
    assert key(protocol=strict)["detector"] == with_pack["detector"]


def test_weights_that_a_metric_reads_besides_the_networks_are_recorded(tiny_weights, tmp_path):
    """The readers of attributes take the CLIP that is given, and the embedded `expression`."""
    strict = get_protocol("strict-v3")
    names = ("attribute_accuracy", "garment_similarity", "motion")

    def hashes(sources=None):
        scorer = Scorer(strict, metrics=[METRICS.load(name) for name in names], sources=sources)
        key = Scoring(strict, names, (), sources or weight_sources.parse()).key
        return key["weights"], key["metric_weights"], scorer.weight_hashes()

    def save_expression(value):
        embedded.save_entry(
            "expression", {"weight": torch.full((2, 2), value)}, recipe="test", seed=0, steps=0,
            config={}, measured={},
        )
        return embedded.entry("expression")["sha256"]

    digest, of_clip = save_expression(1.0), embedded.entry("clip")["sha256"]
    key, besides, files = hashes()
    assert besides == {"clip.safetensors": of_clip, "expression.safetensors": digest}
    assert besides.items() <= files.items() and key["clip"] == of_clip

    theirs = tmp_path / "ViT-B-32.bin"
    theirs.write_bytes(b"weights of another CLIP")
    mine = {**weight_sources.parse(), "clip": weight_sources.Source(
        weight_sources.NETWORKS["clip"], "open_clip", theirs, "ViT-B-32")}
    key, again, files = hashes(mine)
    theirs_identity = f"open_clip:ViT-B-32:{sha256_file(theirs)}"
    assert key["clip"] == theirs_identity
    assert again == {"clip": theirs_identity, "expression.safetensors": digest}
    assert files == {"expression.safetensors": digest, "clip/ViT-B-32.bin": sha256_file(theirs),
                     **{k: v for k, v in files.items() if k.startswith(("arcface", "mtcnn"))}}

    usual = Scoring(strict, ("arcsim",), (), weight_sources.parse()).key
    assert "metric_weights" not in usual, "scores of before stay comparable, and stay"
    assert metric_weight_differences(again, {}) == []
    assert save_expression(2.0) != digest
    (changed,) = metric_weight_differences(again, hashes(mine)[1])
    assert changed[0] == "weights expression.safetensors" and changed[1] == digest


@pytest.fixture
def clip(tmp_path):
    """A video and a reference with a white block, which the tiny pack's SCRFD takes for a face."""
    world = World(tmp_path, tmp_path, {"OMP_NUM_THREADS": "1"})
    frames = np.random.default_rng(0).integers(60, 100, (6, 320, 320, 3), dtype=np.uint8)
    frames[:, 128:192, 128:192] = 255
    frames[:, 160:192] = frames[:, 160:192] // 2
    write_video(world.folder / "one.mp4", Video(frames, 8.0))
    Image.fromarray(frames[0]).save(world.folder / "one.png")
    return world


def _score(world, out, *weights):
    given = [part for text in weights for part in ("--weights", text)]
    return world.run(
        "score", "one.mp4", "--reference", "one.png", "--protocol", "consisid-v1", "--out", out,
        *given,
    )


def test_a_run_records_the_users_weights_and_refuses_to_mix_them(tiny_weights, clip):
    folder = clip.folder
    pack = make_pack(folder / "buffalo_l")
    make_pack(folder / "antelopev2", seed=1)
    done = _score(clip, "a", "arcface=insightface:buffalo_l")
    assert done.returncode == 0, done.stderr
    scoring = json.loads((folder / "a/run.json").read_text())["scoring"]
    digests = {name: sha256_file(pack / name) for name in ("det_10g.onnx", "w600k_r50.onnx")}
    assert scoring["weight_files"]["detector/det_10g.onnx"] == digests["det_10g.onnx"]
    assert scoring["weight_files"]["arcface/w600k_r50.onnx"] == digests["w600k_r50.onnx"]
    assert scoring["weight_files"]["curricularface.safetensors"]
    assert scoring["sources"]["arcface"] == "insightface:buffalo_l/w600k_r50.onnx"
    assert scoring["sources"]["curricularface"] == "embedded"
    assert scoring["providers"] == {
        "detector": ["CPUExecutionProvider"], "arcface": ["CPUExecutionProvider"],
    }
    stood_in = next(note for note in scoring["notes"] if "is defined on" in note)
    assert "glint360k" in stood_in and "buffalo_l" not in stood_in

    assert _score(clip, "b", "arcface=insightface:antelopev2").returncode == 0
    mixed = clip.run("table", "a", "b")
    assert mixed.returncode == 2 and "cannot share a table" in mixed.stderr
    assert "weights arcface" in mixed.stderr

    again = _score(clip, "a", "arcface=insightface:antelopev2")
    assert again.returncode == 2
    assert "idbench score a --weights arcface=insightface:antelopev2" in again.stderr
    rescored = clip.run("score", "a", "--protocol", "consisid-v1", "--weights",
                        "arcface=insightface:antelopev2")
    assert rescored.returncode == 0, rescored.stderr
    assert clip.run("table", "a", "b").returncode == 0


def test_a_checkpoint_that_does_not_fit_ends_the_scoring_in_one_sentence(tiny_weights, clip):
    torch.save(build_recogniser(CURRICULARFACE).state_dict(), clip.folder / "small.bin")
    done = _score(clip, "a", "curricularface=curricularface:small.bin")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "small.bin does not hold the weights of CurricularFace's IR-101" in done.stderr


def test_doctor_opens_the_users_weights(tiny_weights, clip):
    make_pack(clip.folder / "pack")
    (clip.folder / "bad.pth").write_bytes(b"")
    done = clip.run("doctor", "--weights", "arcface=insightface:pack", "--weights",
                    "detector=insightface:pack", "--weights", "viclip=viclip:bad.pth")
    assert done.returncode == 1
    assert "ok    weights arcface: arcface/w600k_r50.onnx, sha256 " in done.stdout
    assert "runs with CPUExecutionProvider" in done.stdout
    assert "ok    weights detector: detector/det_10g.onnx" in done.stdout
    assert "FAIL  weights viclip: bad.pth is empty" in done.stdout
