"""References and text are encoded once a sample, whatever the number of denoising steps."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_base import cogvideox_base, wan_base

from idbench.models.concat_id.model_folder import open_folder


@pytest.fixture(scope="module", params=["cogvideox", "wan"])
def pipeline(request, tmp_path_factory):
    make = cogvideox_base if request.param == "cogvideox" else wan_base
    made = open_folder(make(tmp_path_factory.mktemp("base") / "base")[0], device="cpu",
                       bfloat16=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("references", [0, 1, 2])
def test_only_the_transformer_runs_at_every_step(pipeline, monkeypatch, steps, references):
    calls: Counter[str] = Counter()
    for name, part, method in (
        ("text", pipeline.text_encoder, "forward"), ("encode", pipeline.vae, "_encode"),
        ("decode", pipeline.vae, "_decode"), ("transformer", pipeline.transformer, "forward"),
    ):
        original = getattr(part, method)

        def counted(*arguments, _name=name, _original=original, **named):
            calls[_name] += 1
            return _original(*arguments, **named)

        monkeypatch.setattr(part, method, counted)
    images = torch.rand(1, references, 3, 32, 48) * 2 - 1
    pipeline(["a person smiles"], images, [3], steps, 4.0, 5, 32, 48)
    assert calls["transformer"] in (steps, 2 * steps)  # both branches together, or in turn
    assert calls["encode"] == references and calls["decode"] == 1
    # Wan's other branch has a text of its own.
    assert 1 <= calls["text"] <= 2
