"""The cache of pairs, validation pictures, and every mistake a user can make with a stage."""

from __future__ import annotations

import errno
import json
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import SafetensorError, safe_open
from tiny_stage import make_cache, recipe

from idbench import embedded
from idbench.cli import main
from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.autoencoder import build_vae, to_tensor
from idbench.models.concat_id.references import fit_and_pad
from idbench.models.concat_id.training import cache as caching
from idbench.models.concat_id.training import components, loop, network, samples
from idbench.models.concat_id.training.pair_file import Pair, Slot, held_out, read_pairs
from idbench.types import Video
from idbench.video import read_video, write_video

VAE = {
    "block_out_channels": [8, 8, 8], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 2, "sample_height": 16, "sample_width": 24, "scaling_factor": 0.7,
}


@pytest.fixture(autouse=True)
def fresh_state():
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def tiny_parts(monkeypatch):
    """Tiny random networks in place of the embedded autoencoder and text encoder."""
    torch.manual_seed(0)
    vae = build_vae(VAE)
    monkeypatch.setattr(networks, "load_vae", lambda: vae)
    tokenizer = networks.build_tokenizer(["a", "person", "smiles", "."])
    network = networks.build_text_encoder({
        "vocab_size": len(tokenizer), "d_model": 12, "num_layers": 1, "num_heads": 2, "d_kv": 6,
        "d_ff": 16,
    })
    text = networks.TextEncoder(tokenizer, network.eval())
    monkeypatch.setattr(networks, "load_text_encoder", lambda: text)
    monkeypatch.setattr(caching, "_weight_hashes", lambda source: {"vae": "0"})
    return components.Autoencoder(vae)


@pytest.fixture
def pairs(tmp_path):
    """Five videos at 16 frames a second, one too short, one unreadable, and pairs of them."""
    rng = np.random.default_rng(0)
    videos, faces = tmp_path / "videos", tmp_path / "faces"
    videos.mkdir()
    faces.mkdir()
    rows = []
    for number in range(5):
        frames = rng.integers(0, 256, (5 if number == 3 else 20, 32, 48, 3)).astype(np.uint8)
        write_video(videos / f"{number}.mp4", Video(frames, 16.0))
        if number == 4:
            (videos / "4.mp4").write_bytes(b"no video")
        for k in range(2):
            picture = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(picture).save(faces / f"{number}_{k}.png")
        face = {
            "kind": "face", "video": f"{number}.mp4", "cosine": None,
            "candidates": [{"image": f"faces/{number}_{k}.png", "frame": k} for k in range(2)],
        }
        rows.append({
            "video": f"{number}.mp4", "caption": f"person {number}", "references": [face],
            "score": 0.5,
        })
    rows.append({"video": "0.mp4", "caption": "nobody", "references": [], "score": 0.5})
    path = tmp_path / "cross.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def settings(pairs, **changes):
    return {
        "name": "pairs_cache", "trainer": "x:y", "pairs": str(pairs),
        "videos": str(pairs.parent / "videos"), "components": "embedded", "frames": 9,
        "height": 16, "width": 24, "fps": 8.0, "draws": 2, "held_out": 1, "device": "cpu",
        **changes,
    }


@pytest.mark.parametrize("sizes", [(52, 31, 12, 168), (156, 155, 180, 182), (32, 48, 16, 24)])
def test_videos_of_any_size_fill_the_clip(sizes):
    height, width, *target = sizes
    frame = np.full((height, width, 3), 90, np.uint8)
    assert (caching._cover(frame, *target) == np.full((*target, 3), 90)).all()


def test_cache_holds_clips_text_and_references_of_usable_pairs(pairs, tiny_parts, tmp_path):
    out = tmp_path / "cache"
    assert caching.prepare(settings(pairs), out) == {"samples": 3, "held_out": 1, "skipped": 2}
    cache = samples.Cache.open(out)
    assert sorted(cache.index.video) == ["0.mp4", "1.mp4", "2.mp4"]
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert {row["video"]: row["reason"].split(" has ")[-1] for row in skipped}["3.mp4"] == (
        "5 frames, the clip needs 17"
    )
    row = cache.index[cache.index.video == "1.mp4"].iloc[0]
    stored = samples.read_sample(out, row.key, 1, True, None)
    frames = read_video(pairs.parent / "videos" / "1.mp4", range(0, 18, 2)).frames
    clip = np.stack([caching._cover(frame, 16, 24) for frame in frames])
    expected = tiny_parts.encode(to_tensor(clip[None]).contiguous())[0]
    torch.testing.assert_close(stored["latents"], expected, rtol=0, atol=2e-3)
    assert stored["latents"].shape == (3, 4, 4, 6) and stored["text"].shape == (32, 12)
    face = np.asarray(Image.open(pairs.parent / "faces" / "1_0.png"))
    image = to_tensor(fit_and_pad(face, 16, 24)[None, None])[0, :, 0]
    assert torch.equal(stored["images"][0], image)
    encoded = samples.read_sample(out, row.key, 1, False, None)["references"]
    clean = tiny_parts.encode(image[None, :, None])[:, 0]
    assert 0 < (encoded - clean).abs().max() and encoded.shape == clean.shape


def test_a_background_is_removed_in_a_share_of_the_draws(
    pairs, tiny_parts, tmp_path, monkeypatch
):
    """Both pictures are stored where the parser found a head, and training draws one."""
    def left_half(crop):
        mask = np.zeros(crop.shape[:2], np.float32)
        mask[:, : crop.shape[1] // 2] = 1
        return mask

    monkeypatch.setattr(caching, "load_foreground", lambda *_: (left_half, {}))
    out = tmp_path / "cache"
    caching.prepare(settings(pairs, parser="embedded", keep_background=True, draws=0), out)
    key = samples.Cache.open(out).index.key[0]
    whole, removed = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        row = samples.read_sample(out, key, 1, True, rng, None, background_removed=0.9)
        right = row["images"][0, :, :, 13:19]  # of the padded square's right half
        whole, removed = whole + (right.mean() > -0.7), removed + (right.mean() <= -0.7)
    assert 8 <= whole <= 35 and whole + removed == 200
    always = [
        samples.read_sample(out, key, 1, True, np.random.default_rng(s))["images"]
        for s in range(40)
    ]
    assert max(float(image[0, :, :, 13:19].mean()) for image in always) <= -0.7
    plain = tmp_path / "plain"
    caching.prepare(settings(pairs, parser="embedded", draws=0), plain)
    with safe_open(next(plain.glob("samples/*/*")), framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("whole")]  # noqa: SIM118


def test_cache_goes_on_and_makes_a_sample_anew_when_its_source_changes(
    pairs, tiny_parts, tmp_path, monkeypatch
):
    out = tmp_path / "cache"
    caching.prepare(settings(pairs), out)
    made = []
    encode = caching._encode
    monkeypatch.setattr(
        caching, "_encode", lambda *a: made.append(a[3].video) or encode(*a)
    )
    keys = list(samples.Cache.open(out).index.key)
    samples.sample_path(out, keys[1]).unlink()
    Image.new("RGB", (9, 9)).save(pairs.parent / "faces" / "2_1.png")
    caching.prepare(settings(pairs), out)
    assert made == ["1.mp4", "2.mp4", "3.mp4", "4.mp4"]  # the last two cannot be made


def test_pairs_are_not_held_in_memory(pairs, tiny_parts, tmp_path, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def read(*arguments):
        for pair in read_pairs(*arguments):
            alive.add(pair)
            most.append(len(alive))
            yield pair

    monkeypatch.setattr(caching, "read_pairs", read)
    assert caching.prepare(settings(pairs), tmp_path / "cache")["samples"] == 3
    assert max(most) <= 3  # of five: one in work, one handed over, one being read


def test_a_cache_that_is_half_made_anew_is_no_cache(pairs, tiny_parts, tmp_path, monkeypatch):
    out = tmp_path / "cache"
    caching.prepare(settings(pairs), out)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        caching.prepare(settings(pairs, frames=5), out)
    with pytest.raises(UserError, match="There is no finished cache"):
        samples.Cache.open(out)


def test_stage_trains_on_the_cache_with_fresh_noise_and_shows_validation(
    pairs, tiny_parts, tmp_path, monkeypatch
):
    caching.prepare(settings(pairs, draws=0), tmp_path / "cache")
    monkeypatch.setattr("idbench.embedded.entries", lambda: {})
    content = recipe(
        tmp_path / "cache", references=1, reference_noise="fresh", components="embedded",
        steps=1, validate_every=1, validation_steps=2, precision="bf16",
    )
    loop.train(content, tmp_path / "state")
    with Image.open(tmp_path / "state" / "validation" / "00000001.png") as picture:
        assert picture.size == (5 * 24, 16)  # one sample: a reference and four frames
    rows = [json.loads(r) for r in (tmp_path / "state" / "log.jsonl").read_text().splitlines()]
    assert rows[1]["validation_loss"] > 0
    assert rows[1]["validation_arcsim_unscored"] == "no weights of arcface, clip"
    again = loop.train(content, tmp_path / "state", evaluate=True)
    assert again["validation_loss"] == pytest.approx(rows[1]["validation_loss"])


def test_held_out_people_are_in_no_training_sample():
    links = [(0, 1), (1, 2), (3, 4), (5, 6), (7, 8), (9, 9)]
    pairs = [Pair(f"{a}", "", (Slot("face", f"{b}", ()),)) for a, b in links]
    rows = [(str(n), pair.video) for n, pair in enumerate(pairs)]
    held = set(held_out(rows, pairs, 3, 0))
    assert len(held) == 3
    people = [{v for v in links[int(k)]} for k in held]
    others = {v for n, link in enumerate(links) if str(n) not in held for v in link}
    assert not set().union(*people) & others


# -- mistakes


@pytest.fixture
def told(tmp_path, capsys):
    """Runs `idbench train` on a recipe's content; the one sentence it is refused with."""

    def run(content, *arguments):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(path), "--state", str(tmp_path / "state"), *arguments])
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if line.startswith("Error: ")]
        assert stopped.value.code == 2 and len(lines) == 1 and "Traceback" not in said, said
        return lines[0]

    return run


def test_mistakes_in_a_recipe_are_one_sentence(tmp_path, told):
    made = make_cache(tmp_path / "cache")
    good = recipe(made)
    for changes, words in (
        ({"learningrate": 1}, "did you mean 'learning_rate'?"),
        ({"steps": "many"}, "has steps 'many'; use a whole number"),
        ({"references": 4}, "less than or equal to 3, not 4"),
        ({"network": "cogvideox-5"}, "did you mean 'cogvideox-5b'?"),
        ({"network": {**good["network"], "layers": 3}}, "unusable network"),
        ({"cache": str(tmp_path / "gone")}, "There is no finished cache in"),
        ({"frames": 13}, "was made with frames 9, the recipe 'tiny' has 13"),
        ({"global_batch": 3}, "which 1 process of batch 2 cannot make"),
        ({"init": str(tmp_path)}, "There is no transformer in"),
        ({"reference_noise": "fresh"}, "names no autoencoder"),
        ({"components": str(tmp_path), "validate_every": 1}, "has no folder 'vae'"),
    ):
        AcceleratorState._reset_state(True)
        assert words in told({**good, **changes}), changes
    assert "names no" not in told({**good, "cache": ""})
    bare = make_cache(tmp_path / "bare", draws=0)
    (bare / "cache.json").write_text(json.dumps({**samples.Cache.open(bare).settings, "draws": 0}))
    assert "contains no encoded references" in told(recipe(bare))
    samples.sample_path(made, samples.Cache.open(made).index.key[5]).write_bytes(b"")
    AcceleratorState._reset_state(True)
    assert "is missing or damaged" in told({**good, "global_batch": 8})


def test_mistakes_with_a_checkpoint_are_one_sentence(tmp_path, told):
    content = recipe(make_cache(tmp_path / "cache"), steps=2)
    loop.train(content, tmp_path / "state")
    assert "continue it with --resume" in told(content)
    assert "seed 4 instead of 3" in told({**content, "seed": 4}, "--resume")
    AcceleratorState._reset_state(True)
    optimiser = tmp_path / "state" / "checkpoints" / "00000002" / "optimizer.bin"
    optimiser.write_bytes(optimiser.read_bytes()[:100])
    assert "optimizer.bin is missing or truncated" in told(content, "--resume")


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])
def test_full_disk_keeps_the_older_checkpoint(tmp_path, told, monkeypatch, error):
    content = recipe(make_cache(tmp_path / "cache"))
    save = Accelerator.save_state

    def full(self, folder):
        save(self, folder)
        if "00000004" in folder:
            raise error

    monkeypatch.setattr(Accelerator, "save_state", full)
    assert "is full; free some space" in told(content)
    checkpoints = tmp_path / "state" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["00000002"]


def test_mistakes_with_pairs_are_one_sentence(pairs, tiny_parts, tmp_path, told):
    trainer = {"trainer": "idbench.models.concat_id.training.cache:prepare"}
    good = {**settings(pairs), **trainer}
    odd = tmp_path / "odd.parquet"
    pd.DataFrame([{"video": "0.mp4", "caption": "x"}]).to_parquet(odd)
    (tmp_path / "broken.parquet").write_bytes(b"x")
    for changes, words in (
        ({"pairs": "gone.parquet"}, "There is no pairs file gone.parquet; build them"),
        ({"pairs": str(odd)}, "has no column 'references'"),
        ({"pairs": str(tmp_path / "broken.parquet")}, "is damaged"),
        ({"videos": "gone"}, "There is no folder gone; pass the folder that"),
        ({"references": 2}, "has 2 references"),
        ({"height": 20}, "multiples of 8, not 20x24"),
        ({"frames": 10}, "Frames must be 4k + 1, not 10; try 9"),
        ({"components": "gone"}, "gone has no folder 'vae'"),
        ({"parser": "best"}, "There is no folder best; name a folder"),
        ({"frames": 49}, "No sample could be made"),
    ):
        assert words in told({**good, **changes}), changes


def test_embedded_weights_of_another_network_are_refused_before_it_is_made(
    tmp_path, told, monkeypatch
):
    """CogVideoX-5B beside the embedded weights: 22 GB would be filled first."""
    monkeypatch.setattr(embedded, "load_state", lambda name: {"a.weight": torch.zeros(2)})
    made = []
    monkeypatch.setattr(
        network, "build_transformer", lambda config, make=network.build_transformer: (
            made.append(torch.empty(0).device.type), make(config))[1],
    )
    content = recipe(make_cache(tmp_path / "cache"), network="cogvideox-5b", init="embedded:tiny")
    assert "embedded:tiny contains a different network than the recipe 'tiny'" in told(content)
    assert made == ["meta"]
