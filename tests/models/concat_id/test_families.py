"""The families: schedules, noise and sampling, the same for pipelines, training and validation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from tiny_base import cogvideox_base, wan_base

from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX, Wan, wan21
from idbench.models.concat_id.model_folder import open_folder
from idbench.models.concat_id.training import components, validation
from idbench.models.concat_id.training.network import Denoiser
from idbench.models.concat_id.training.objective import Batch, loss
from idbench.models.concat_id.training.recipe import read_stage
from idbench.models.concat_id.training.setup import make_family

FAMILIES = {
    "cogvideox": CogVideoX(networks.build_scheduler()), "wan": Wan(wan21.build_flow_scheduler()),
}
BASES = {"cogvideox": cogvideox_base, "wan": wan_base}


@pytest.fixture(scope="module", params=["cogvideox", "wan"])
def base(request, tmp_path_factory):
    """A family's name and a tiny base of it in diffusers' layout."""
    folder, _ = BASES[request.param](tmp_path_factory.mktemp(request.param))
    return request.param, folder


def opened(folder, **options):
    pipeline = open_folder(folder, device="cpu", **{"bfloat16": False, **options})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_wans_noise_levels_are_shifted_by_5():
    """Noise levels s -> 5 s / (1 + 4 s) of 1, 3/4, 2/4, 1/4, then 0."""
    scheduler = wan21.build_flow_scheduler()
    FAMILIES["wan"].start(scheduler, 4, torch.device("cpu"))
    even = np.array([1, 0.75, 0.5, 0.25])
    expected = [*(5 * even / (1 + 4 * even)), 0]
    assert scheduler.sigmas.numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_sampling_with_a_right_velocity_ends_at_the_clean_latents(name):
    family, clean = FAMILIES[name], normal(1, 3, 4, 4, 6)
    noise, _ = family.noise([3], tuple(clean.shape[1:]), torch.device("cpu"))

    def network(latents, references, text, times):
        if name == "wan":
            return noise - clean
        alpha = family.scheduler.alphas_cumprod[times[0]]
        found = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return alpha.sqrt() * found - (1 - alpha).sqrt() * clean

    end = family.sample(network, [3], tuple(clean.shape[1:]), torch.zeros(1, 2, 3), None, 12, 1.0)
    torch.testing.assert_close(end.float(), clean, rtol=0, atol=1e-3)


def test_velocity_loss_is_that_of_x0_weighted_by_noise():
    x0, noise, wrong = (normal(3, 2, 4, 4, 6, seed=seed) for seed in range(3))
    alphas = torch.linspace(0.99, 0.05, 10)
    family = CogVideoX(SimpleNamespace(alphas_cumprod=alphas))
    batch = Batch(x0, x0[:, :0], x0[:, 0, 0], torch.tensor([0.05, 0.55, 0.95]), noise)
    noised = family.add_noise(x0, noise, batch.uniform)
    assert noised.times.tolist() == [0, 5, 9]
    a = alphas[noised.times].view(-1, 1, 1, 1, 1)
    predicted = a.sqrt() * noised.latents - (1 - a).sqrt() * wrong  # x0 from this velocity
    expected = ((predicted - x0).square() / (1 - a)).mean((1, 2, 3, 4))
    torch.testing.assert_close(loss(lambda *_: wrong, family, batch), expected)
    again = a.sqrt() * noised.latents - (1 - a).sqrt() * noised.target
    torch.testing.assert_close(again, x0)


def test_flow_matching_goes_back_to_x0_and_shifts_times_towards_noise():
    x0, noise = (normal(2, 2, 4, 4, 6, seed=seed) for seed in range(2))
    noisy, times, target = FAMILIES["wan"].add_noise(x0, noise, torch.tensor([0.25, 0.5]))
    assert times.tolist() == pytest.approx([625.0, 1000 * 5 / 6])
    torch.testing.assert_close(noisy - times.view(-1, 1, 1, 1, 1) / 1000 * target, x0)


def test_training_and_pipeline_read_a_prompt_alike(base):
    _, folder = base
    prompts = ["a  person &amp;amp; a\nperson smiles."]
    trained = components.load_text_encoder(str(folder), torch.device("cpu"))(prompts)
    sampled = opened(folder).encode_text(prompts)
    assert torch.equal(trained, sampled)


def test_wans_prompts_are_cleaned():
    assert FAMILIES["wan"].clean(" a  person &amp;amp;\ta cat\n") == "a person & a cat"
    assert FAMILIES["wan"].clean("the girl\u2019s \u201chat\u201d, caf\u00c3\u00a9") == (
        "the girl's \"hat\", caf\u00e9"
    )
    for prompt in ("\ufb01re &lt;b&gt;", "\uff21\uff22\u3000c", "\x1b[1mx\u200b y\x85z"):
        assert FAMILIES["wan"].clean(prompt) == prompt_clean(prompt)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_and_pipeline_use_the_autoencoder_alike(base, bfloat16):
    _, folder = base
    pipeline = opened(folder, bfloat16=bfloat16)
    ours = components.load_autoencoder(str(folder), torch.device("cpu"))
    ours.vae.to(pipeline.vae.dtype)
    images = normal(2, 1, 3, 32, 48).clamp(-1, 1)
    latents = ours.encode(images[:, :, :, None].flatten(0, 1))[:, 0]
    assert torch.equal(latents, pipeline.encode_references(images)[:, 0])
    for frames in (1, 2, 3):  # an even number is a case of its own in CogVideoX
        z = normal(1, frames, 4, 4, 6)
        assert torch.equal(ours.decode(z), pipeline.family.decode(pipeline.vae, z))
        size = 4 * ours.spatial, 6 * ours.spatial
        assert ours.decode(z).shape == (1, 3, 4 * frames - 3, *size)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_validation_and_pipeline_sample_alike(base, guidance):
    name, folder = base
    pipeline = opened(folder)
    latents, references, text = normal(1, 3, 4, 4, 6), normal(1, 1, 4, 4, 6), normal(1, 7, 20)
    session = SimpleNamespace(
        recipe=SimpleNamespace(validation_steps=3, validation_guidance=guidance),
        network=Denoiser(pipeline.transformer),
        family=make_family(read_stage({
            "name": "x", "trainer": "x", "network": {"family": name}, "components": str(folder),
        })),
    )
    batch = Batch(latents, references, text, torch.zeros(1), latents)
    with torch.no_grad():
        validated = validation.sample_latents(session, batch, 4)
    size = 4 * pipeline.compression, 6 * pipeline.compression
    sampled = pipeline.sample_latents(text, references, [4], 3, guidance, 3, *size)
    assert torch.equal(validated, sampled)


def test_sampling_leaves_the_scheduler_as_it_is(base):
    pipeline = opened(base[1])
    before = dict(vars(pipeline.scheduler))
    pipeline(["a person"], None, [1], steps=2, frames=5, height=32, width=48)
    assert all(vars(pipeline.scheduler)[key] is value for key, value in before.items())
