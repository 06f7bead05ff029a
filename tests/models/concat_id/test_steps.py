"""CogVideoX's sampling ends at the clean latents for any number of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler

from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX, DetailCogVideoX

SHAPE = (1, 2, 2, 2)
SCHEDULERS = {
    "embedded": {},
    "shifted": {"snr_shift_scale": 3.0},
    "unclean": {"set_alpha_to_one": False},
    "leading": {"timestep_spacing": "leading"},
}


def family(kind: str = "embedded") -> CogVideoX:
    config = dict(networks.build_scheduler().config)
    config.pop("_use_default_values", None)  # else diffusers ignores changes of these
    made = CogVideoXDPMScheduler.from_config({**config, **SCHEDULERS[kind]})
    assert SCHEDULERS[kind].items() <= made.config.items()
    return CogVideoX(made)


def oracle(family: CogVideoX, clean: torch.Tensor, seen: list[int] | None = None):
    """A network that knows the clean latents."""

    def network(latents, references, text, times):
        if seen is not None:
            seen.append(int(times[0]))
        alpha = family.scheduler.alphas_cumprod[times[0]].float()
        return (alpha.sqrt() * latents - clean) / (1 - alpha).sqrt()

    return network


def sample(family: CogVideoX, network, steps: int) -> torch.Tensor:
    return family.sample(network, [3], SHAPE, torch.zeros(1, 1, 1), None, steps, 1.0)


OTHERS = (*range(1, 41), 61, 103, 121, 199, 200)
SHIPPED = (*range(1, 81), *range(81, 200, 7), 103, 121, 199, 200)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_any_number_of_steps_ends_at_the_clean_latents(kind):
    """The times are the same for every kind, so the shipped one alone goes through most numbers."""
    clean = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    made = family(kind)
    for steps in SHIPPED if kind == "embedded" else OTHERS:
        error = float((sample(made, oracle(made, clean), steps) - clean).abs().max())
        assert error < 1e-4, f"{steps} steps are {error} off"


@pytest.mark.parametrize("steps", [1, 3, 6, 7, 24, 61, 103, 121, 1000])
def test_times_are_those_of_the_release(steps):
    made, seen = family(), []
    sample(made, oracle(made, torch.zeros(1, *SHAPE), seen), steps)
    assert len(seen) == steps
    assert seen == np.linspace(999, 0, steps, endpoint=False).astype(int).tolist()


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200])
def test_numbers_that_divide_1000_are_as_diffusers_computes_them(steps):
    made = family()

    def network(latents, references, text, times):
        return torch.sin(3 * latents + times.view(-1, 1, 1, 1, 1) / 100)

    scheduler = networks.build_scheduler()
    scheduler.set_timesteps(steps)
    latents, generators = made.noise([3], SHAPE, torch.device("cpu"))
    before, last = None, None
    for time in scheduler.timesteps:
        velocity = network(latents, None, None, time.expand(1))
        latents, before = scheduler.step(
            velocity, before, time, last, latents, generator=generators, return_dict=False
        )
        last = time
    assert torch.equal(sample(made, network, steps), latents)


@pytest.mark.parametrize("steps", [1, 2, 10, 25, 50, 1000])
def test_detail_spreads_the_times_in_decibels(steps):
    made, seen = DetailCogVideoX(networks.build_scheduler()), []
    clean = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    assert float((sample(made, oracle(made, clean, seen), steps) - clean).abs().max()) < 1e-4
    assert len(set(seen)) == steps and seen[0] == 999 and seen == sorted(seen, reverse=True)
    if steps in (10, 25):
        levels = made.decibels()[seen[1:]].numpy()
        assert levels == pytest.approx(np.linspace(-12, 24, steps - 1), abs=0.7)
