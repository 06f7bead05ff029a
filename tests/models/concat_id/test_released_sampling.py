"""`sampling: released` against the released sampler, written here from its published formulas."""

from __future__ import annotations

import numpy as np
import pytest
import released_forms
import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from released_shapes import HEAD, WIDTH, random_state, sat_shapes, write_sat
from tiny_base import cogvideox_base, wan_base

from idbench.errors import UserError
from idbench.models.concat_id import convert_sat, networks
from idbench.models.concat_id.families import CogVideoX, ReleasedCogVideoX
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.pipeline import ConcatIDPipeline
from idbench.models.concat_id.released_checkpoints import convert

SHAPE = (3, 4, 8, 12)


def noise_levels(times: np.ndarray) -> torch.Tensor:
    """sqrt(alpha_bar) at falling times, rescaled among themselves to start at 0 (zero SNR)."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    roots = np.sqrt(np.cumprod(1 - betas)[times].astype(np.float32))
    return torch.from_numpy((roots - roots[0]) * (roots[-1] / (roots[-1] - roots[0])))


def released(predict, seed: int, steps: int) -> torch.Tensor:
    """DPM-Solver++ (2M, SDE) at the released noise levels.

    Args:
        predict: from latents (1, N, C, h, w) and an integer time to the guided velocity.
    """
    times = np.linspace(999, 0, steps, endpoint=False).astype(int)
    levels = noise_levels(times)
    trained = noise_levels(np.arange(999, -1, -1))
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(SHAPE, generator=generator)[None]

    def half_log_snr(level):
        return (level / (1 - level**2).sqrt()).log()

    x, before = draw(), None
    for i, time in enumerate(times):
        nearest = trained[(trained - levels[i]).abs().argmin()]
        clean = nearest * x - (1 - nearest**2).sqrt() * predict(x, int(time))
        if i == steps - 1:
            return clean
        now, then = levels[i], levels[i + 1]
        h = half_log_snr(then) - half_log_snr(now)
        keep = ((1 - then**2) / (1 - now**2)).sqrt() * (-h).exp()
        move, grain = (-2 * h).expm1() * then, ((1 - then**2) * (1 - (-2 * h).exp())).sqrt()
        first = keep * x - move * clean + grain * draw()
        if before is None:
            x = first
        else:
            r = (half_log_snr(now) - half_log_snr(levels[i - 1])) / h
            better = (1 + 1 / (2 * r)) * clean - before / (2 * r)
            x = keep * x - move * better + grain * draw()
        before = clean
    raise AssertionError


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The released state dict and the transformer that `convert` makes of it."""
    folder = tmp_path_factory.mktemp("sat")
    # Small enough that rounding is not amplified over the steps.
    state = {k: 0.4 * v for k, v in random_state(sat_shapes(), torch.float32).items()}
    convert(write_sat(folder / "sat", state), folder / "ours")
    made = CogVideoXTransformer3DModel.from_pretrained(folder / "ours" / "transformer").eval()
    made.register_to_config(sample_height=8, sample_width=12)
    return {k.removeprefix(convert_sat.PREFIX): v for k, v in state.items()}, made


def pipeline(transformer, vae, text, sampling: str) -> ConcatIDPipeline:
    made = ConcatIDPipeline(
        text.tokenizer, text.network, vae, transformer, networks.build_scheduler(),
        sampling=sampling,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_the_whole_sampler_equals_the_released_one(network, vae, text, steps):
    state, transformer = network
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(1, 226, 20, generator=generator)
    references = torch.randn(1, 2, *SHAPE[1:], generator=generator)

    def predict(x, time):
        both = [
            released_forms.sat(state, x, references, t, torch.tensor([time]), WIDTH // HEAD)
            for t in (torch.zeros_like(words), words)
        ]
        return both[0] + 6.0 * (both[1] - both[0])

    made = pipeline(transformer, vae, text, "released")
    with torch.no_grad():
        theirs = released(predict, 5, steps)
        ours = made.sample_latents(words, references, [5], steps, 6.0, 3, 32, 48)
        default = pipeline(transformer, vae, text, "default").sample_latents(
            words, references, [5], steps, 6.0, 3, 32, 48
        )
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (default - theirs).abs().max() > 1e-4


@pytest.mark.parametrize("steps", [3, 24, 60, 109, 110, 111])
def test_other_numbers_of_steps_equal_the_release_too(steps):
    """At 109 to 111 steps a level lies halfway between two of training, up to rounding."""

    def velocity(x, time):
        return 0.6 * torch.sin(2 * x + time / 300) + 0.1 * x

    ours = ReleasedCogVideoX(networks.build_scheduler()).sample(
        lambda x, references, text, times: velocity(x, int(times[0])), [5], SHAPE,
        torch.zeros(1, 1, 1), None, steps, 1.0,
    )
    torch.testing.assert_close(ours, released(velocity, 5, steps), rtol=0, atol=2e-5)


def test_the_levels_of_all_times_are_those_of_training():
    """With every time chosen there is nothing else to rescale over."""
    scheduler = networks.build_scheduler()
    ReleasedCogVideoX(scheduler).start(scheduler, 1000, torch.device("cpu"))
    trained = networks.build_scheduler().alphas_cumprod.float()
    torch.testing.assert_close(scheduler.alphas_cumprod, trained, rtol=0, atol=1e-6)


def test_one_step_and_a_shifted_schedule_give_numbers():
    config = {**networks.build_scheduler().config, "snr_shift_scale": 3.0}
    family = ReleasedCogVideoX(CogVideoXDPMScheduler.from_config(config))
    for steps in (1, 3):
        made = family.sample(
            lambda x, references, text, times: 0.1 * x, [1], (1, 2, 2, 2), torch.zeros(1, 1, 1),
            None, steps, 1.0,
        )
        assert made.isfinite().all()


def test_the_model_samples_so_on_request(tmp_path):
    folder, _ = cogvideox_base(tmp_path / "base")
    usual = ConcatID(weights=str(folder), device="cpu")
    model = ConcatID(weights=str(folder), device="cpu", sampling="released")
    assert dict(model.settings().items() - usual.settings().items()) == {"sampling": "released"}
    made = model.pipeline("single")
    assert type(made.family) is ReleasedCogVideoX
    assert made.transformer.norm_out.norm.eps == 1e-6
    assert made.transformer.norm_final.eps == 1e-5
    assert type(usual.pipeline("single").family) is CogVideoX
    assert usual.pipeline("single").transformer.norm_out.norm.eps == 1e-5


def test_it_is_refused_for_wan_and_by_another_name(tmp_path):
    folder, _ = wan_base(tmp_path / "base")
    with pytest.raises(UserError, match="Wan's always samples as its release does"):
        ConcatID(weights=str(folder), sampling="released")
    with pytest.raises(UserError, match="sampling is one of default, released, detail, not 'sat'"):
        ConcatID(sampling="sat")
