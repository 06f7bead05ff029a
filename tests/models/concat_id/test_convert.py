"""Conversion of released checkpoints: nothing lost, the same function, damage refused."""

from __future__ import annotations

import errno
import json
import os
import pickle

import pytest
import released_forms
import torch
from click.testing import CliRunner
from diffusers import CogVideoXTransformer3DModel
from released_shapes import HEAD, WIDTH, random_state, sat_shapes, wan_shapes, write_sat
from safetensors.torch import save_file

from idbench.commands.convert import convert as command
from idbench.errors import UserError
from idbench.models.concat_id import convert_sat, convert_wan
from idbench.models.concat_id import released_checkpoints as module
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.released_checkpoints import check_weights, convert, read_released
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


@pytest.fixture
def sat(tmp_path):
    return write_sat(tmp_path / "sat", random_state(sat_shapes()))


@pytest.fixture(params=[False, True], ids=["plain", "adaln"])
def wan_file(request, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(random_state(wan_shapes(request.param)), path)
    return path


def test_sat_there_and_back_is_bit_equal(sat, tmp_path):
    report = convert(sat, tmp_path / "ours")
    assert (report.from_, report.to, report.form) == ("sat", "diffusers", "CogVideoX")
    assert report.mapped + len(report.aside) == len(sat_shapes())
    assert not report.refused
    convert(tmp_path / "ours", tmp_path / "back")
    assert same(read_released(tmp_path / "back").state, read_released(sat).state)
    # And once more from there: the folder is bit-equal too.
    convert(tmp_path / "back", tmp_path / "again")
    first, second = (
        CogVideoXTransformer3DModel.from_pretrained(tmp_path / n / "transformer").state_dict()
        for n in ("ours", "again")
    )
    assert same(first, second)


def test_wan_there_and_back_is_bit_equal(wan_file, tmp_path):
    report = convert(wan_file, tmp_path / "ours")
    state = read_released(wan_file).state
    assert report.mapped == len(state) and not report.refused
    convert(tmp_path / "ours", tmp_path / "back.pt", to="wan")
    assert same(read_released(tmp_path / "back.pt").state, state)
    convert(tmp_path / "ours", tmp_path / "folder")
    assert same(read_released(tmp_path / "folder").state, state)


def test_a_converted_sat_checkpoint_computes_what_the_released_network_does(tmp_path):
    state = random_state(sat_shapes(), torch.float32)
    convert(write_sat(tmp_path / "sat", state), tmp_path / "ours")
    network = CogVideoXTransformer3DModel.from_pretrained(tmp_path / "ours" / "transformer")
    generator = torch.Generator().manual_seed(1)
    # The released table of positions is that of 60x90 latents.
    latents = torch.randn(1, 2, 4, 60, 90, generator=generator)
    references = torch.randn(1, 2, 4, 60, 90, generator=generator)
    text = torch.randn(1, 226, 20, generator=generator)
    time = torch.tensor([400])
    with torch.no_grad():
        latents, references = latents[..., :8, :12], references[..., :8, :12]
        network.register_to_config(sample_height=8, sample_width=12)
        ours = denoise(network.eval(), latents, references, text, time)
        short = {k.removeprefix(convert_sat.PREFIX): v for k, v in state.items()}
        theirs = released_forms.sat(short, latents, references, text, time, WIDTH // HEAD)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_full_size_cogvideox_on_the_meta_device():
    """CogVideoX-5B: 42 layers of 3072; every name and shape has its place."""
    shapes = sat_shapes(3072, 64, 42, 16, 512, 4096)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        network, aside, refused = convert_sat.sort(state)
        config = convert_sat.config_of(network)
        assert (config["num_layers"], config["num_attention_heads"]) == (42, 48)
        transformer = CogVideoXTransformer3DModel.from_config(config)
        check_weights(convert_sat.from_released(network), transformer, "it")
        back = convert_sat.to_released(transformer.state_dict())
    assert list(aside) == ["transformer.position_embeddings.weight"] and not refused
    assert {k: tuple(v.shape) for k, v in back.items()} == {
        k: s for k, s in shapes.items() if "position_embeddings" not in k
    }
    assert 5.5e9 < sum(p.numel() for p in transformer.parameters()) < 5.6e9


@pytest.mark.parametrize("adaln", [False, True])
def test_full_size_wan_on_the_meta_device(adaln):
    """Wan2.1-T2V-1.3B: 30 blocks of 1536."""
    shapes = wan_shapes(adaln, 1536, 30, 16, 4096, 256, 8960)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = convert_wan.config_of(state)
        assert (config["num_layers"], config["num_attention_heads"]) == (30, 12)
        transformer = ConcatIDWanTransformer3DModel.from_config(config)
        check_weights(convert_wan.from_released(state), transformer, "it")
        back = convert_wan.to_released(transformer.state_dict())
    assert {k: tuple(v.shape) for k, v in back.items()} == shapes
    parameters = sum(p.numel() for p in transformer.parameters())
    assert round(parameters / 1e9, 2) == (1.43 if adaln else 1.42)


def test_what_is_not_of_the_network_is_named(tmp_path):
    state = random_state(sat_shapes())
    state["first_stage_model.encoder.conv_in.conv.weight"] = torch.zeros(2)
    source = write_sat(tmp_path / "sat", state, iteration=5000, optimizer={"step": 3})
    result = CliRunner().invoke(command, [str(source), str(tmp_path / "ours")])
    assert result.exit_code == 0, result.output
    for words in (
        "refused: first_stage_model.encoder.conv_in.conv.weight (the autoencoder is",
        "refused: iteration (", "refused: optimizer (",
        "kept aside: transformer.position_embeddings.weight (",
    ):
        assert words in result.output
    written = json.loads((tmp_path / "ours" / "conversion.json").read_text())
    assert written["refused"].keys() == {
        "first_stage_model.encoder.conv_in.conv.weight", "iteration", "optimizer"
    }


def broken(kind, tmp_path):
    """A bad source of a kind, and words of its message."""
    state = random_state(sat_shapes())
    path = tmp_path / "bad.pt"
    if kind == "missing":
        return path, "is missing"
    if kind == "empty":
        path.write_bytes(b"")
        return path, "is empty"
    if kind == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        return path, "only a Git LFS pointer"
    if kind == "cut":
        torch.save({"module": state}, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path, "damaged or truncated"
    if kind == "cut safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path, "damaged or truncated"
    if kind == "text":
        path.write_text("not a checkpoint at all")
        return path, "torch.save did not write it"
    if kind == "code":
        path.write_bytes(pickle.dumps({"module": Harmful()}))
        return path, "is not a plain state dict"
    if kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
        return path, "is not a plain state dict"
    if kind == "list":
        torch.save([torch.zeros(2)], path)
        return path, "contains no state dict"
    if kind == "no tensors":
        torch.save({"module": {"a": 1}}, path)
        return path, "contains no state dict"
    if kind == "another base":
        torch.save({"model.up_blocks.0.weight": torch.zeros(2)}, path)
        return path, "not a checkpoint of Concat-ID"
    if kind == "image to video":
        # Noisy latents and those of the first frame, side by side.
        shapes = {convert_sat.PREFIX + "mixins.patch_embed.proj.weight": (WIDTH, 8, 2, 2)}
        torch.save({"module": random_state(sat_shapes() | shapes)}, path)
        return path, "another base"
    if kind == "2B":
        state[convert_sat.PREFIX + "mixins.pos_embed.pos_embedding"] = torch.zeros(1, 4, WIDTH)
        torch.save({"module": state}, path)
        return path, "CogVideoX-2B"
    if kind == "lacks one":
        del state[convert_sat.PREFIX + "transformer.layers.1.mlp.dense_4h_to_h.bias"]
        torch.save({"module": state}, path)
        return path, "lacks 1 tensor .transformer.layers.1.mlp.dense_4h_to_h.bias"
    if kind == "one too many":
        state[convert_sat.PREFIX + "transformer.layers.1.extra.weight"] = torch.zeros(1)
        torch.save({"module": state}, path)
        return path, "holds 1 tensor .transformer.layers.1.extra.weight"
    if kind == "wrong shape":
        state[convert_sat.PREFIX + "transformer.layers.1.mlp.dense_4h_to_h.bias"] = torch.zeros(9)
        torch.save({"module": state}, path)
        return path, "has shape .9,., the network needs .32,"
    if kind == "stranger beside":
        state["something.weight"] = torch.zeros(1)
        torch.save({"module": state}, path)
        return path, "something.weight"
    state = random_state(wan_shapes(False)) | {"img_emb.proj.1.weight": torch.zeros(1)}
    torch.save(state, path)
    return path, "image-to-video Wan"


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/idbench-harm",)


@pytest.mark.parametrize("kind", [
    "missing", "empty", "pointer", "cut", "cut safetensors", "text", "code", "module", "list",
    "no tensors", "another base", "image to video", "2B", "lacks one", "one too many",
    "wrong shape", "stranger beside", "wan image to video",
])
def test_a_bad_checkpoint_is_one_sentence_and_writes_nothing(kind, tmp_path):
    source, words = broken(kind, tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        convert(source, tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} <= {source.name}
    assert not os.path.exists("/tmp/idbench-harm")


def test_the_command_line_exits_with_2(tmp_path, capsys):
    from idbench.cli import main

    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tmp_path / "empty.pt"), str(tmp_path / "ours")])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1


@pytest.mark.parametrize("fails", ["weights", "index"])
def test_a_full_disk_leaves_nothing_half_written(sat, tmp_path, monkeypatch, fails):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = CogVideoXTransformer3DModel if fails == "weights" else module
    monkeypatch.setattr(owner, "save_pretrained" if fails == "weights" else "write_json", full)
    with pytest.raises(UserError, match="is full"):
        convert(sat, tmp_path / "ours")
    assert {p.name for p in tmp_path.iterdir()} == {"sat"}


def test_too_little_space_is_said_before_writing(sat, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("U", (), {"free": 10}))
    with pytest.raises(UserError, match="free some space"):
        convert(sat, tmp_path / "ours")


def test_an_existing_target_is_left_alone(sat, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        convert(sat, tmp_path / "ours")
    assert (tmp_path / "ours" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("to", ["sat", "wan"])
def test_a_layout_that_does_not_fit_is_refused(sat, tmp_path, to):
    with pytest.raises(UserError, match="leave out --to"):
        convert(sat, tmp_path / "ours", to=to)
    convert(sat, tmp_path / "ours")
    if to == "wan":
        with pytest.raises(UserError, match="--to sat"):
            convert(tmp_path / "ours", tmp_path / "back", to=to)


def test_a_network_without_the_quirk_cannot_become_a_released_file(tmp_path):
    network = ConcatIDWanTransformer3DModel(
        num_attention_heads=1, ffn_dim=40, num_layers=1, text_dim=20, freq_dim=16, in_channels=4,
        out_channels=4, reference_adaln=True, reference_ffn_quirk=False,
    )
    network.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match="reference_ffn_quirk False"):
        convert(tmp_path / "ours", tmp_path / "back.pt")


def test_shards_are_read_and_a_missing_one_is_named(sat, tmp_path):
    convert(sat, tmp_path / "ours")
    network = CogVideoXTransformer3DModel.from_pretrained(tmp_path / "ours" / "transformer")
    network.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 1
    convert(tmp_path / "shards", tmp_path / "back.pt")
    assert (tmp_path / "back.pt").is_file()
    shards[0].unlink()
    with pytest.raises(UserError, match="is missing"):
        convert(tmp_path / "shards", tmp_path / "other.pt")
