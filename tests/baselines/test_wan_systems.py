"""VACE, Phantom and Stand-In: released inventories, and their folders from picture to video."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from released_shapes import wan_shapes
from tiny_base import wan_base
from tiny_consisid import face_picture, make_antelope, run_of, world_of_faces
from tiny_wan import (
    SIZE,
    phantom_folder,
    random_state,
    stand_in_folder,
    stand_in_shapes,
    vace_folder,
)

from idbench.baselines import wan_parts
from idbench.baselines.phantom import Phantom
from idbench.baselines.stand_in import CHECKPOINT, StandIn, square
from idbench.baselines.stand_in_network import StandInTransformer3DModel
from idbench.baselines.vace import Vace
from idbench.errors import UserError
from idbench.models.concat_id.convert_wan import from_released
from idbench.video import read_video

BOTH = {
    "1.3B": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "14B": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}
WAN_NUMBERS = {"1.3B": 1_418_996_800, "14B": 14_288_491_584}


def count(shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    root = tmp_path_factory.mktemp("wan")
    base, _ = wan_base(root / "base")
    return {
        "base": base, "vace": vace_folder(root / "vace"),
        "phantom": phantom_folder(root / "phantom"),
        "phantom@14B": phantom_folder(root / "phantom14", shards=True),
        "stand_in": stand_in_folder(root / "stand_in"), "pack": make_antelope(root / "pack"),
    }


@pytest.fixture
def world(tmp_path):
    return world_of_faces(tmp_path)


def settings(name: str, releases) -> tuple[str, ...]:
    faces = () if name == "stand_in" else ("parser=none",)
    base = () if name == "vace" else (f"base={releases['base']}",)
    return (*SIZE, *base, *faces, f"faces=insightface:{releases['pack']}")


# Released inventories


@pytest.mark.parametrize("size", ["1.3B", "14B"])
def test_phantoms_checkpoint_is_wans_network(size):
    """The released names and shapes fit diffusers' class to the number, on the meta device."""
    config = BOTH[size]
    width = 128 * config["num_attention_heads"]
    shapes = wan_shapes(False, width=width, layers=config["num_layers"], channels=16, text=4096,
                        freq=256, ffn=config["ffn_dim"])
    with torch.device("meta"):
        network = WanTransformer3DModel(**config)
        ours = from_released({n: torch.empty(s) for n, s in shapes.items()})
    assert {n: t.shape for n, t in ours.items()} == {
        n: t.shape for n, t in network.state_dict().items()}
    assert count(shapes.values()) == WAN_NUMBERS[size]


def test_stand_ins_layers_fit_the_14b_network():
    shapes = stand_in_shapes(width=5120, layers=40)
    assert count(shapes.values()) == 157_286_400  # 40 layers, 3 x 2 of 5120 x 128
    with torch.device("meta"):
        network = StandInTransformer3DModel(**BOTH["14B"])
        network.add_loras({n: torch.empty(s) for n, s in shapes.items()}, Path("x.ckpt"))
        del shapes["blocks.39.self_attn.v_loras.up.weight"]
        with pytest.raises(UserError, match="x.ckpt does not hold .*Stand-In"):
            network.add_loras({n: torch.empty(s) for n, s in shapes.items()}, Path("x.ckpt"))


@pytest.mark.parametrize(("size", "step"), [("1.3B", 2), ("14B", 5)])
def test_vaces_control_branch_has_its_size(size, step):
    config = BOTH[size]
    layers = list(range(0, config["num_layers"], step))
    with torch.device("meta"):
        network = WanVACETransformer3DModel(**config, vace_layers=layers, vace_in_channels=96)
        plain = WanTransformer3DModel(**config)
    width = 128 * config["num_attention_heads"]
    block = count(t.shape for n, t in plain.state_dict().items() if n.startswith("blocks.0."))
    added = count(t.shape for t in network.state_dict().values()) - WAN_NUMBERS[size]
    # Each control block is one of Wan with a projection out; the first also has one in.
    linear = width * width + width
    assert added == len(layers) * (block + linear) + linear + 96 * 4 * width + width


# From the released layout to videos


@pytest.mark.parametrize("name", ["vace", "phantom", "phantom@14B", "stand_in"])
def test_a_run_from_the_released_layout(name, releases, world):
    done = world.run(*run_of(name, releases[name], "single", *settings(name, releases)))
    assert done.returncode == 0, done.stderr
    videos = sorted((world.folder / "out").glob("samples/*/video.mp4"))
    assert len(videos) == 2
    assert read_video(videos[0]).frames.shape == (5, 32, 48, 3)
    run = json.loads((world.folder / "out" / "run.json").read_text())
    hashes = (run.get("identity") or run)["model"]["weights"]
    assert any("base/" in file for file in hashes) == (name != "vace")


@pytest.mark.parametrize("name", ["vace", "phantom"])
def test_two_people_run_and_stand_in_their_order(name, releases, world):
    done = world.run(*run_of(name, releases[name], "multi", *settings(name, releases)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "split", "extra", "reason"), [
    ("stand_in", "multi", (), "takes 1 person, not 2 (it reads one face)"),
    ("vace", "single", ("frames=6",), "Frames must be 4k + 1, not 6"),
    ("vace", "single", ("order=left",), "Unknown order"),
    ("phantom@7B", "single", (), "Unknown variant of phantom '7B'"),
    ("phantom", "single", ("text_guidence=2",), "did you mean 'text_guidance'"),
])
def test_what_they_cannot_do_is_refused(name, split, extra, reason, releases, world):
    weights = releases[name.partition("@")[0]]
    own = {text.partition("=")[0] for text in extra}
    usual = [t for t in settings(name, releases) if t.partition("=")[0] not in own]
    done = world.run(*run_of(name, weights, split, *usual, *extra))
    assert done.returncode == 2 and reason in " ".join(done.stderr.split()), done.stderr


def test_missing_files_are_named(releases, tmp_path):
    with pytest.raises(UserError, match="has no Phantom-Wan-1.3B.*weights get phantom-1.3b"):
        _ = Phantom(weights=str(releases["vace"])).files
    with pytest.raises(UserError, match=f"{CHECKPOINT} is missing; `idbench weights get stand-in`"):
        _ = StandIn(weights=str(releases["vace"])).folder
    for path in releases["vace"].iterdir():
        if path.name != "transformer":
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(UserError, match="transformer is missing; .* weights get vace-14b"):
        _ = Vace(weights=str(tmp_path)).folder


def test_the_defaults_are_the_authors():
    vace, phantom, large, stand_in = (
        Vace(weights="x"), Phantom(weights="x"), Phantom("14B", weights="x"),
        StandIn(weights="x"),
    )
    for model in (vace, phantom, large, stand_in):
        assert (model.height, model.width, model.guidance) == (480, 832, 5.0)
    assert (vace.steps, vace.frames, vace.fps, vace.shift) == (50, 81, 16.0, 16.0)
    assert (phantom.steps, phantom.frames, phantom.fps, phantom.shift) == (50, 81, 16.0, 5.0)
    assert (phantom.text_guidance, large.frames, large.fps) == (7.5, 121, 24.0)
    assert (stand_in.steps, stand_in.frames, stand_in.fps, stand_in.shift) == (20, 81, 25.0, 5.0)


# What each computes


def test_vace_sees_references_in_the_order_given(releases, monkeypatch):
    seen = []

    class Pipeline:
        def __call__(self, **arguments):
            seen.append([p.getpixel((0, 0)) for p in arguments["reference_images"]])
            return type("O", (), {"frames": [np.zeros((5, 32, 48, 3))]})

    from idbench.types import Reference, Sample

    references = tuple(Reference("garment", n, Path(n)) for n in "ab")
    sample = Sample("s", "multi", "p", "a person", "c", references, 7)
    for order in ("original", "diffusers"):
        model = Vace(weights=str(releases["vace"]), order=order)
        monkeypatch.setattr(model, "networks", Pipeline(), raising=False)
        model._prepared = {"a": (np.full((4, 4, 3), 10, np.uint8), None),
                           "b": (np.full((4, 4, 3), 20, np.uint8), None)}
        model._frames(sample)
    # The pipeline puts each picture before those that it has: the last of the list comes first.
    assert [s[::-1][0][0] for s in seen] == [10, 20]


def test_phantoms_guidance_has_three_branches(releases, monkeypatch):
    model = Phantom(weights=str(releases["phantom"]), base=str(releases["base"]), frames=5,
                    height=32, width=48, steps=1, device="cpu", bfloat16=False)
    pipeline = model.networks
    calls = []

    class Network:
        dtype, config = torch.float32, pipeline.transformer.config

        def __call__(self, sequence, time, prompt, return_dict):
            calls.append((sequence[:, :, -1].abs().max() > 0, prompt.mean()))
            value = 100 * float(calls[-1][0]) + float(prompt.mean())
            return (torch.full_like(sequence, value),)

    class Scheduler:
        timesteps = torch.tensor([999.0])

        def set_timesteps(self, *_, **__):
            pass

        def step(self, found, time, latents, return_dict):
            return (found,)

    fake = type("P", (), {"transformer": Network(), "scheduler": Scheduler(), "vae": pipeline.vae})
    text = torch.stack([torch.full((3, 20), 1.0), torch.full((3, 20), 2.0)])
    references = torch.ones(1, 4, 2, 4, 6)
    found = model._sample(fake, text, references, 0)
    neg, image, both = 2.0, 102.0, 101.0
    assert len(calls) == 3 and found.shape == (1, 4, 2, 4, 6)
    assert found.unique().tolist() == [neg + 5.0 * (image - neg) + 7.5 * (both - image)]


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = StandInTransformer3DModel(
        num_attention_heads=1, attention_head_dim=128, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=2,
    ).eval()
    made.add_loras(random_state(stand_in_shapes(layers=2)), Path("x.ckpt"))
    return made


@torch.no_grad()
def test_stand_in_remembers_a_face_and_reads_no_text(network):
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(2, 4, 3, 4, 6, generator=generator)
    text = torch.randn(2, 5, 20, generator=generator)
    time = torch.tensor([500.0, 500.0])
    faces = torch.randn(2, 4, 1, 8, 8, generator=generator)
    without = network(video, time, text, return_dict=False)[0]

    def seen(face, text_read=text):
        network(video, time, text_read, picture=face[None], return_dict=False)
        return network(video, time, text, return_dict=False)[0]

    first = seen(faces[0])
    assert (first - without).abs().max() > 1e-4
    assert torch.equal(first, seen(faces[0], text_read=torch.zeros_like(text)))
    assert (seen(faces[1]) - first).abs().max() > 1e-4


@torch.no_grad()
def test_stand_in_is_one_attention_over_video_and_face(network):
    """Against plain tensors: the video reads both, the face itself with its LoRA layers."""
    block = network.blocks[0]
    processor = block.attn1.processor
    attn = block.attn1
    generator = torch.Generator().manual_seed(2)
    face, video = torch.randn(1, 4, 128, generator=generator), torch.randn(
        1, 6, 128, generator=generator)
    processor.reading = True
    attn(face)
    processor.reading = False
    found = attn(video)
    k = torch.cat([attn.norm_k(attn.to_k(video)), attn.norm_k(
        attn.to_k(face) + processor.k_loras.up(processor.k_loras.down(face)))], dim=1)
    v = torch.cat([attn.to_v(video),
                   attn.to_v(face) + processor.v_loras.up(processor.v_loras.down(face))], dim=1)
    weights = (attn.norm_q(attn.to_q(video)) @ k.mT / math.sqrt(128)).softmax(-1)
    torch.testing.assert_close(found, attn.to_out[0](weights @ v), rtol=1e-4, atol=1e-5)


def test_stand_ins_positions_are_the_releases(network):
    video, picture = torch.empty(1, 4, 3, 4, 6), torch.empty(1, 4, 1, 8, 8)
    cos, sin = network.rope.of_picture(video, picture)
    assert cos.shape == sin.shape == (1, 16, 1, 128)
    t, h, w = network.rope.t_dim, network.rope.h_dim, network.rope.w_dim
    table = network.rope.freqs_cos
    rows, columns = 2, 3  # tokens of the video
    expected = torch.cat([table[0, :t], table[1 + rows + 1, t:t + h],
                          table[1 + columns + 2, t + h:t + h + w]])
    assert torch.equal(cos[0, 1 * 4 + 2, 0], expected)
    start = torch.cat([table[1, :t], table[1, t:t + h], table[1, t + h:]])
    assert torch.equal(network.rope(video)[0][0, 0, 0], start)


def test_the_face_is_cropped_and_padded_as_released():
    image = face_picture()
    crop, problem = square(image, np.array([320.0, 256, 352, 288]))
    assert crop.shape == (512, 512, 3) and problem is None
    assert (crop == 255).mean() == pytest.approx((32 / 48) ** 2, abs=0.05)
    at_the_edge, _ = square(image, np.array([0.0, 200, 40, 240]))
    assert (at_the_edge[:, :40] == 255).all()  # white where the crop leaves the picture
    whole, problem = square(image[:, :320], None)
    assert problem == "no face found: whole image used" and (whole[:, :100] == 255).all()


def test_references_are_letterboxed_on_white():
    tall = np.zeros((40, 10, 3), np.uint8)
    found = wan_parts.on_white(tall, 32, 48)
    assert found.shape == (32, 48, 3)
    assert (found[:, :20] == 255).all() and (found[:, 28:] == 255).all()
    assert (found[:, 20:28] == 0).all()
