"""ConsisID: the released inventory, and its folder from photograph to video."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler, ConsisIDTransformer3DModel
from tiny_consisid import (
    PACK,
    RELEASED,
    SIZE,
    eva_shapes,
    face_picture,
    make_folder,
    run_of,
    world_of_faces,
)

from idbench.baselines.consisid import DETECTION, PARSING, ConsisID
from idbench.baselines.consisid_parts import EvaTower
from idbench.baselines.face_crop import (
    FacexlibCropper,
    PackCropper,
    crop_face,
)
from idbench.errors import UserError
from idbench.video import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("consisid") / "ConsisID-preview")


@pytest.fixture
def world(tmp_path):
    return world_of_faces(tmp_path)


def test_the_released_network_has_its_size():
    """Inventory of the facts page: 6,217,102,912 numbers, stored positions among them."""
    with torch.device("meta"):
        network = ConsisIDTransformer3DModel(**RELEASED)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(np.prod(shape, dtype=np.int64) for shape in shapes.values()) == 6_217_102_912
    assert shapes["patch_embed.pos_embedding"] == (1, 17776, 3072)
    assert shapes["local_facial_extractor.proj_out"] == (1024, 2048)
    assert shapes["local_facial_extractor.id_embedding_mapping.6.weight"] == (5120, 1024)
    assert shapes["perceiver_cross_attention.20.to_kv.weight"] == (4096, 2048)
    assert "perceiver_cross_attention.21.to_q.weight" not in shapes


def test_a_run_from_the_released_layout(folder, world):
    done = world.run(*run_of("consisid", folder, "single", PACK, *SIZE))
    assert done.returncode == 0, done.stderr
    videos = sorted((world.folder / "out").glob("samples/*/video.mp4"))
    assert len(videos) == 2
    assert read_video(videos[0]).frames.shape == (9, 32, 48, 3)
    run = json.loads((world.folder / "out" / "run.json").read_text())
    model = (run.get("identity") or run)["model"]
    assert "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt" in model["weights"]
    assert model["settings"]["crop_of"] == "centre"
    torch.manual_seed(3)  # the video depends on the sample's seed alone
    again = [*run_of("consisid", folder, "single", PACK, *SIZE), "--limit", "1", "--out", "again"]
    assert world.run(*again).returncode == 0
    (same,) = (world.folder / "again").glob("samples/*/video.mp4")
    assert same.read_bytes() in [video.read_bytes() for video in videos]


def test_every_number_of_steps_ends_at_the_clean_latents(folder):
    """diffusers' own steps end clean only where they divide 1000."""
    model = ConsisID(weights=str(folder), face_crop="pack", bfloat16=False, device="cpu")
    scheduler = model._load_pipeline().scheduler
    clean = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(1))
    worst = {}
    for steps in (1, 2, 6, 7, 15, 50, 60, 61, 103, 121, 200):
        scheduler.set_timesteps(steps)
        assert len(set(scheduler.timesteps.tolist())) == len(scheduler.timesteps) == steps
        x, before = torch.ones(1, 2, 2), None
        for number, time in enumerate(scheduler.timesteps):
            alpha = scheduler.alphas_cumprod[time]
            velocity = (alpha.sqrt() * x - clean) / (1 - alpha).sqrt()
            last = scheduler.timesteps[number - 1] if number else None
            x, before = scheduler.step(velocity, before, time, last, x, return_dict=False)
        worst[steps] = float((x - clean).abs().max())
    assert max(worst.values()) < 1e-4, worst


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_numbers_of_steps_that_divide_1000_are_as_diffusers_computes_them(folder, steps):
    model = ConsisID(weights=str(folder), face_crop="pack", bfloat16=False, device="cpu")
    ends = []
    ours = model._load_pipeline().scheduler
    for scheduler in (ours, CogVideoXDPMScheduler.from_config(ours.config)):
        scheduler.set_timesteps(steps)
        x, before, generator = torch.ones(1, 2, 2), None, torch.Generator().manual_seed(2)
        for number, time in enumerate(scheduler.timesteps):
            last = scheduler.timesteps[number - 1] if number else None
            x, before = scheduler.step(
                torch.sin(3 * x + time / 100), before, time, last, x, generator=generator,
                return_dict=False,
            )
        ends.append(x)
    assert torch.equal(*ends)


def test_the_defaults_are_the_authors():
    model = ConsisID(weights="here")
    assert (model.steps, model.guidance, model.frames, model.fps) == (50, 6.0, 49, 8.0)
    assert (model.height, model.width, model.face_crop) == (480, 720, "facexlib")


@pytest.mark.parametrize(("split", "settings", "reason"), [
    ("multi", (), "takes 1 person, not 2 (its transformer reads one face)"),
    ("single", ("crop_of=left",), "Unknown crop_of"),
    ("single", ("stepz=4",), "did you mean 'steps'?"),
    ("single", ("frames=13",), "9 frames of 32x48 only (its learned positions), not 13 of 32x48"),
])
def test_what_it_cannot_do_is_refused(folder, world, split, settings, reason):
    size = [pair for pair in SIZE if pair.split("=")[0] not in {s.split("=")[0] for s in settings}]
    done = world.run(*run_of("consisid", folder, split, PACK, *size, *settings))
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.split())


def test_missing_files_are_named(folder, world):
    done = world.run(*run_of("consisid", folder, "single", *SIZE))
    assert done.returncode == 2
    assert "detection_Resnet50_Final.pth is missing; `idbench weights get consisid`" in (
        " ".join(done.stderr.split())
    )


def test_without_facexlib_its_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(ConsisID, "files", ConsisID.FILES)
    monkeypatch.setattr(ConsisID, "path", lambda model, file: model.folder / file)
    monkeypatch.setitem(sys.modules, "facexlib.detection.retinaface", None)
    with pytest.raises(UserError, match=r"needs the package facexlib .*'idbench\[consisid\]'"):
        ConsisID(weights=str(folder), device="cpu").load()


def test_the_condition_is_what_the_release_computes(folder):
    """One vector of the recogniser, not normalised, and one of EVA-CLIP, of length 1."""
    model = ConsisID(weights=str(folder), face_crop="pack", bfloat16=False, device="cpu")
    encoder = model._load_faces("cpu")
    face = encoder.encode(face_picture(2))
    assert face.vector.shape == (1, 512 + 24)
    assert face.vector[0, 512:].norm() == pytest.approx(1, abs=1e-5)
    assert not face.vector[0, :512].norm() == pytest.approx(1, abs=1e-2)
    assert [tuple(h.shape) for h in face.hidden] == [(1, 5, 64)] * 5
    assert face.problem == "2 faces found: centre one cropped; no face parser: background kept"


def test_the_crop_may_be_of_another_person_as_in_the_release(folder):
    """Of two faces, the recogniser reads the largest and the crop shows the central one."""
    picture = face_picture(2)
    cropper = PackCropper(folder / "face_encoder/models/antelopev2", None, "cpu")
    faces = cropper.find(picture)
    central = [np.abs(b.reshape(2, 2).mean(0) - 320).max() < 100 for b in faces.boxes].index(True)
    assert central == 1, "the picture's largest face is not its central one"
    crops = {}
    for crop_of in ("centre", "largest"):
        model = ConsisID(
            weights=str(folder), face_crop="pack", crop_of=crop_of, bfloat16=False, device="cpu"
        )
        crops[crop_of] = model._load_faces("cpu").encode(picture).crop
    assert np.array_equal(crops["centre"], crop_face(picture, faces.landmarks[central]))
    assert np.array_equal(crops["largest"], crop_face(picture, faces.landmarks[0]))


def test_white_takes_the_place_of_what_is_no_face(folder):
    model = ConsisID(weights=str(folder), face_crop="pack", bfloat16=False, device="cpu")
    encoder = model._load_faces("cpu")
    half = np.zeros((512, 512), bool)
    half[:, :256] = True
    encoder.cropper.face_mask = lambda crop: half
    crop = np.full((512, 512, 3), (100, 50, 200), np.uint8)
    shown, seen = encoder._masked(crop, [])
    assert (shown[:, 256:] == 255).all() and (shown[:, :256] == (100, 50, 200)).all()
    grey = (0.299 * 100 + 0.587 * 50 + 0.114 * 200) / 255
    assert seen[0, :, 0, 0].tolist() == pytest.approx([grey] * 3)
    assert (seen[..., 256:] == 1).all()


def test_the_released_eva_tower_fits():
    """EVA02-CLIP-L-14-336 on the meta device; hidden states before every fourth block."""
    shapes = eva_shapes(width=1024, side=24, out=768)
    tower = EvaTower({n: torch.empty(s, device="meta") for n, s in shapes.items()}, Path("eva.pt"))
    assert (tower.layers, tower.size) == ([3, 7, 11, 15, 19], 336)
    del shapes["visual.blocks.23.mlp.w3.bias"]
    with pytest.raises(UserError, match=r"eva.pt does not hold .* it lacks 1 tensor"):
        EvaTower({n: torch.empty(s, device="meta") for n, s in shapes.items()}, Path("eva.pt"))


def test_facexlib_finds_and_masks_with_the_released_files(tmp_path):
    """Random RetinaFace whose every anchor is a face, and a random BiSeNet."""
    from facexlib.detection.retinaface import RetinaFace
    from facexlib.parsing.bisenet import BiSeNet

    torch.manual_seed(0)
    network = RetinaFace(network_name="resnet50", device="cpu")
    for head in network.ClassHead:
        head.conv1x1.bias.data = torch.tensor([-20.0, 20.0] * 2)
    detection, parsing = tmp_path / Path(DETECTION).name, tmp_path / Path(PARSING).name
    # As the release: names as in parallel training.
    torch.save(
        {f"module.{n}": t for n, t in network.state_dict().items()}, detection
    )
    torch.save(BiSeNet(num_class=19).state_dict(), parsing)
    cropper = FacexlibCropper(detection, parsing, "cpu")
    faces = cropper.find(face_picture()[:64, :96])
    assert len(faces) and faces.landmarks.shape[1:] == (5, 2)
    mask = cropper.face_mask(np.zeros((512, 512, 3), np.uint8))
    assert mask.shape == (512, 512) and mask.dtype == bool
    parsing.write_bytes(parsing.read_bytes()[:4096])
    with pytest.raises(UserError, match="parsing_bisenet.pth is damaged"):
        FacexlibCropper(detection, parsing, "cpu")
