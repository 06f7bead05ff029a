"""A converted folder runs through the same model as the embedded weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import cogvideox_base, wan_base

from idbench.errors import UserError
from idbench.models.concat_id import convert_sat
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.model_folder import open_folder
from idbench.models.concat_id.pipeline import ConcatIDPipeline, ConcatIDWanPipeline
from idbench.models.concat_id.released_checkpoints import convert
from idbench.types import Reference, Sample

TINY = {"steps": 2, "frames": 5, "height": 32, "width": 48, "device": "cpu"}


def linear(state, name, rows, *columns):
    generator = torch.Generator().manual_seed(len(state))
    state[f"{name}.weight"] = 0.2 * torch.randn(rows, *columns, generator=generator)
    state[f"{name}.bias"] = 0.2 * torch.randn(rows, generator=generator)


@pytest.fixture(scope="module", params=["cogvideox", "wan"])
def made(request, tmp_path_factory):
    """(kind, base folder, folder converted from a released checkpoint, the network)."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "cogvideox":
        base, transformer = cogvideox_base(root / "base")
        state = {"module": convert_sat.to_released(transformer.state_dict())}
    else:
        from idbench.models.concat_id.convert_wan import to_released
        from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

        base, plain = wan_base(root / "base")
        transformer = ConcatIDWanTransformer3DModel.from_base(plain, adaln=True)
        state = to_released(transformer.state_dict())
    torch.save(state, root / "released.pt")
    convert(root / "released.pt", root / "ours", base=base)
    return request.param, base, root / "ours", transformer


@pytest.fixture
def sample(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cloth.png")
    reference = Reference("garment", "cloth", tmp_path / "cloth.png")

    def build(seed=7, references=1):
        return Sample("s", "tryon", "p", "a person smiles", "c", (reference,) * references, seed)

    return build


def frames(model, sample):
    return next(iter(model.generate([sample]))).frames


def test_a_converted_folder_makes_videos(made, sample):
    kind, _, folder, _ = made
    model = ConcatID(weights=str(folder), **TINY)
    model.load()
    video = next(iter(model.generate([sample()])))
    assert video.frames.shape == (5, 32, 48, 3)
    assert video.fps == (8.0 if kind == "cogvideox" else 16.0)
    assert np.array_equal(video.frames, frames(ConcatID(weights=str(folder), **TINY), sample()))
    assert not np.array_equal(video.frames, frames(model, sample(seed=8)))
    base = frames(ConcatID("base", weights=str(folder), **TINY), sample())
    assert not np.array_equal(video.frames, base)
    assert np.array_equal(base, frames(model, sample(references=0)))


def test_the_folders_networks_are_the_checkpoints(made):
    kind, _, folder, transformer = made
    pipeline = open_folder(folder, device="cpu", bfloat16=False)
    assert type(pipeline) is (ConcatIDPipeline if kind == "cogvideox" else ConcatIDWanPipeline)
    loaded = pipeline.transformer.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in transformer.state_dict().items())
    assert pipeline.config.text_tokens == (226 if kind == "cogvideox" else 512)
    if kind == "cogvideox":
        assert pipeline.config.mask_padding is False
        assert pipeline.scheduler.config.prediction_type == "v_prediction"
    else:
        assert pipeline.scheduler.config.shift == 5.0


def test_bfloat16_and_what_stays_in_float32(made):
    kind, _, folder, _ = made
    pipeline = open_folder(folder, device="cpu")
    assert pipeline.transformer.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.vae.dtype == (torch.bfloat16 if kind == "cogvideox" else torch.float32)


def test_the_bases_own_folder_runs_as_the_base(made, sample):
    """Concat-ID's plain forms add no parameter, so the base opens as one with references."""
    kind, base, folder, _ = made
    ours = frames(ConcatID("base", weights=str(folder), **TINY, bfloat16=False), sample())
    theirs = frames(ConcatID("base", weights=str(base), **TINY, bfloat16=False), sample())
    assert np.array_equal(ours, theirs)


def test_padding_is_read_by_cogvideox_and_zero_in_wan(made):
    kind, _, folder, _ = made
    embedded = open_folder(folder, device="cpu", bfloat16=False).encode_text(["a person"])
    behind = embedded[0, 10:]
    assert behind.any() if kind == "cogvideox" else not behind.any()


def test_defaults_are_those_of_the_release(made):
    kind, _, folder, _ = made
    model = ConcatID(weights=str(folder))
    assert (model.steps, model.guidance, model.frames, model.height, model.width) == (
        (50, 6.0, 49, 480, 720) if kind == "cogvideox" else (50, 5.0, 81, 480, 832)
    )
    assert model.reference_guidance == 1 and "reference_guidance" not in model.settings()
    assert ConcatID().settings() == {
        "variant": None, "steps": 10, "guidance": 5.0, "frames": 9, "height": 64, "width": 96,
        "bfloat16": True, "reference_guidance": 5.0,
    }
    assert ConcatID("base").guidance == 2


def test_hashes_name_every_file_that_matters(made):
    kind, _, folder, _ = made
    hashes = ConcatID(weights=str(folder)).weight_hashes()
    assert {
        "transformer/diffusion_pytorch_model.safetensors", "transformer/config.json",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    } <= hashes.keys()
    assert all(len(value) == 64 for value in hashes.values())


def test_an_even_number_of_latent_frames_is_decoded_like_a_longer_video(made):
    """13 frames are 4 latent frames; whatever follows, the first 9 frames are the same."""
    kind, _, folder, _ = made
    if kind == "wan":
        pytest.skip("Wan's autoencoder decodes latents one by one")
    pipeline = open_folder(folder, device="cpu", bfloat16=False)
    latents = torch.randn(1, 5, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        short, long = (pipeline.family.decode(pipeline.vae, z) for z in (latents[:, :4], latents))
    assert short.shape[2] == 13 and long.shape[2] == 17
    assert torch.equal(short[:, :, :9], long[:, :, :9])
    # The rest differs by what the normalisation of the last pair sees, no more.
    assert (short[:, :, 9:] - long[:, :, 9:13]).abs().mean() < 0.3 * short.std()


def test_slicing_is_on_and_tiling_by_choice(made):
    folder = made[2]
    assert open_folder(folder, device="cpu").vae.use_slicing
    assert not open_folder(folder, device="cpu").vae.use_tiling
    assert open_folder(folder, device="cpu", tiling=True).vae.use_tiling


def test_the_pipelines_name_their_order_for_offloading(made):
    assert type(open_folder(made[2], device="cpu")).model_cpu_offload_seq == (
        "text_encoder->transformer->vae"
    )
    with pytest.raises(UserError, match="needs an accelerator"):
        open_folder(made[2], device="cpu", offload="model")
    with pytest.raises(UserError, match="offload is one of"):
        open_folder(made[2], offload="some")


def damaged(kind, folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    if kind == "missing":
        return folder / "nowhere", "is missing"
    if kind == "no part":
        (folder / "vae").rename(folder / "away")
        return folder, "lacks vae; convert again with --base"
    if kind == "empty":
        weights.write_bytes(b"")
        return folder, "is empty"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
        return folder, "cannot be loaded"
    if kind == "no json":
        (folder / "model_index.json").write_text("{")
        return folder, "not valid JSON"
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder, "contains a StableDiffusionPipeline"


@pytest.mark.parametrize("kind", ["missing", "no part", "empty", "cut", "no json", "other"])
def test_a_bad_folder_is_one_sentence(made, tmp_path, kind):
    import shutil

    shutil.copytree(made[2], tmp_path / "copy")
    folder, words = damaged(kind, tmp_path / "copy")
    with pytest.raises(UserError, match=words) as caught:
        ConcatID(weights=str(folder), **TINY).load()
    assert "\n" not in str(caught.value)


def test_without_a_base_the_folder_says_what_it_lacks(made, tmp_path):
    convert(made[2].parent / "released.pt", tmp_path / "alone")
    with pytest.raises(UserError, match="lacks tokenizer, text_encoder, vae"):
        ConcatID(weights=str(tmp_path / "alone"))


def test_a_base_of_another_kind_is_refused(made, tmp_path):
    kind, _, folder, _ = made
    other, _ = (wan_base if kind == "cogvideox" else cogvideox_base)(tmp_path / "other")
    with pytest.raises(UserError, match="different base|belongs to another base"):
        convert(folder.parent / "released.pt", tmp_path / "ours", base=other)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"frames": 6}, "k \\+ 1, not 6"), ({"height": 30}, "must be multiples of"),
     ({"device": "cuda:7"}, "cannot be used|cannot be loaded")],
)
def test_impossible_settings_are_refused(made, sample, settings, words):
    model = ConcatID(weights=str(made[2]), **{**TINY, **settings})
    with pytest.raises(UserError, match=words):
        frames(model, sample())


def test_settings_of_a_folder_need_a_folder():
    for settings in ({"device": "cpu"}, {"tiling": True}, {"negative": "x"}, {"offload": "model"}):
        with pytest.raises(UserError, match="belong to the networks of a model folder"):
            ConcatID(**settings)


@pytest.mark.parametrize(("settings", "words"), [
    ({"steps": 1.5}, "steps must be a whole number, not 1.5"),
    ({"steps": float("nan")}, "steps must be a whole number"),
    ({"frames": "nine"}, "frames must be a number, not 'nine'"),
    ({"guidance": True}, "guidance must be a number, not True"),
    ({"batch": "x"}, "batch must be a number"),
    ({"bfloat16": "maybe"}, "bfloat16 must be true or false, not 'maybe'"),
    ({"tiling": 1}, "tiling must be true or false|belong to the networks"),
])
def test_settings_of_another_kind_are_one_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        ConcatID(**settings)


def test_the_command_line_runs_a_folder(made, tmp_path, monkeypatch, capsys):
    from idbench.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--model", "concat_id", "--split", "single", "--limit", "1", "--no-score"]
    for key, value in {**TINY, "weights": made[2]}.items():
        arguments += ["--set", f"{key}={value}"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--out", "out"])
    assert caught.value.code in (0, None), capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("video.mp4"))) == 1


def test_offloaded_networks_make_the_same_video(made):
    """With the processor in the accelerator's place: the hooks are those of an accelerator."""
    folder = made[2]
    images = torch.rand(1, 2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    arguments = (["a person smiles"], images, [3], 2, 2.0, 5, 32, 48)
    pipeline = open_folder(folder, device="cpu", bfloat16=False)
    before = pipeline(*arguments)
    pipeline.enable_model_cpu_offload(device="cpu")
    torch.testing.assert_close(pipeline(*arguments), before)
