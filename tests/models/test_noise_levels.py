"""Drawing noise levels by their signal-to-noise ratio."""

from __future__ import annotations

import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.networks import build_scheduler
from idbench.models.concat_id.training.objective import LevelSampler
from idbench.models.concat_id.training.recipe import Levels, read_stage
from idbench.models.concat_id.training.setup import make_family

FAMILY = CogVideoX(build_scheduler())


def drawn(levels: Levels) -> torch.Tensor:
    places = LevelSampler(FAMILY.decibels(), levels)((torch.arange(4000) + 0.5) / 4000)
    assert bool(((places >= 0) & (places < 1)).all())
    return FAMILY.decibels()[(places * 1000).long()]


def test_levels_have_the_mean_and_deviation_asked_for():
    levels = drawn(Levels(mean=5.0, deviation=4.0, uniform=0.0))
    assert float(levels.mean()) == pytest.approx(5.0, abs=0.3)
    assert float(levels.std()) == pytest.approx(4.0, abs=0.3)


def test_the_uniform_share_keeps_the_schedule():
    whole = drawn(Levels(mean=5.0, deviation=4.0, uniform=1.0))
    assert float((whole < -10).float().mean()) == pytest.approx(0.36, abs=0.02)
    part = drawn(Levels(mean=10.0, deviation=3.0, uniform=0.5))
    assert float((part < -10).float().mean()) == pytest.approx(0.18, abs=0.02)


def test_a_velocity_leads_back_to_the_clean_latents():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 1, 4, 4, 6, generator=generator) for _ in range(2))
    noised = FAMILY.add_noise(clean, noise, torch.tensor([0.1, 0.5, 0.9]))
    again = FAMILY.denoised(noised.latents, noised.target, noised.times)
    torch.testing.assert_close(again, clean, rtol=1e-4, atol=1e-5)


def test_levels_are_for_cogvideox_alone():
    recipe = read_stage({
        "name": "mine", "trainer": "x", "network": "wan2.1-1.3b",
        "levels": {"mean": 5.0, "deviation": 4.0},
    })
    with pytest.raises(UserError, match="`levels`, which only CogVideoX's schedule has"):
        make_family(recipe)
    with pytest.raises(UserError, match="unusable value for levels.deviation"):
        read_stage({"name": "mine", "trainer": "x", "levels": {"mean": 5.0, "deviation": 0.0}})
