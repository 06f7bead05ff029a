"""`--plan` against measurements: exact counts, PyTorch's counter, the memory of a real run."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import torch
from tiny_stage import TRANSFORMER, WAN, make_cache, recipe
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from idbench.cli import main
from idbench.models.concat_id.networks import build_transformer
from idbench.models.concat_id.training import loop, measure, network
from idbench.models.concat_id.training.plan import GIB, Assumptions, plan
from idbench.models.concat_id.training.recipe import StageRecipe, read, read_stage
from idbench.models.concat_id.training.setup import make_optimisers
from idbench.recipes import load_recipe, recipe_files

HELPERS = Path(__file__).parents[2] / "helpers"
SMALL = {
    **TRANSFORMER, "num_attention_heads": 4, "num_layers": 3, "sample_height": 4,
    "sample_width": 6, "max_text_seq_length": 20,
}
SMALL_WAN = {**WAN, "attention_head_dim": 24, "num_layers": 3, "ffn_dim": 192}


def stage(**changes):
    # The tiny networks' autoencoder has 4x4 pixels a latent, the published one 8x8.
    sizes = {"height": 32, "width": 48, "precision": "no", "gradient_checkpointing": False}
    return read(StageRecipe, recipe(Path("unused"), **{**sizes, **changes}))


@pytest.mark.parametrize("config", [SMALL, SMALL_WAN], ids=["cogvideox", "wan"])
@pytest.mark.parametrize("references", [0, 2])
def test_counts_are_those_of_a_real_step(config, references):
    made = stage(network=config, references=references, batch=2)
    planned = plan(made, Assumptions(gpus=1))
    transformer = network.build(made).train()
    assert planned.parameters == sum(p.numel() for p in transformer.parameters())
    wan = config["family"] == "wan"
    text = (512, 12) if wan else (20, 12)
    inputs = (
        torch.randn(2, 3, 4, 4, 6), torch.randn(2, references, 4, 4, 6), torch.randn(2, *text),
        torch.full((2,), 500.0),
    )
    lengths: list[int] = []
    block = transformer.blocks[0] if wan else transformer.transformer_blocks[0]
    block.register_forward_pre_hook(
        lambda module, arguments, named: lengths.append(sum(
            tensor.shape[1] for tensor in ([arguments[0]] if wan else named.values())
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 3
        )), with_kwargs=True,
    )
    # PyTorch counts no operation of the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.Denoiser(transformer)(*inputs).square().mean().backward()
    assert lengths == [planned.tokens]
    assert planned.tokens == (0 if wan else 20) + 18 + 6 * references
    assert planned.flops_per_sample * 2 == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("config", [SMALL, SMALL_WAN], ids=["cogvideox", "wan"])
def test_counting_few_blocks_gives_what_counting_all_gives(config, monkeypatch):
    made = stage(network={**config, "num_layers": 6})
    few = plan(made, Assumptions(gpus=1))
    monkeypatch.setattr(measure, "COUNTED_BLOCKS", 6)
    assert plan(made, Assumptions(gpus=1)) == few


def test_checkpointing_costs_a_forward_pass_of_the_blocks():
    plain, again = (plan(stage(gradient_checkpointing=c), Assumptions(1)) for c in (False, True))
    assert plain.hardware_flops_per_step == plain.flops_per_step == again.flops_per_step
    assert 1.2 < again.hardware_flops_per_step / again.flops_per_step < 1.34
    assert again.memory["activations"] < plain.memory["activations"]


PEAK = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, {helpers!r})
from tiny_stage import recipe
from idbench.models.concat_id.training import loop, samples
from idbench.models.concat_id.training.recipe import StageRecipe, read, read_stage
torch.set_num_threads(1)
def peak():
    # ru_maxrss would begin with the peak of the process that forked this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
opened = samples.Cache.open(Path({cache!r}))
loop.Session(read(StageRecipe, recipe(Path({small!r}))), samples.Cache.open(Path({small!r})),
             Path({state!r})).run()  # what is loaded at the first step is not the network's
before = peak()
session = loop.Session(read(StageRecipe, {content!r}), opened, Path({state!r}) / "large")
batches = session.batches()
for _ in range(2):
    session.advance(batches)
print("PEAK", peak() - before)
"""


def test_memory_is_that_of_a_real_training_within_a_factor_of_one_and_a_half(tmp_path):
    config = {
        **SMALL, "num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 6,
        "sample_height": 16, "sample_width": 24,
    }
    content = recipe(
        make_cache(tmp_path / "cache", samples=4, references=1, latents=(9, 4, 16, 24),
                   text=(20, 12)),
        network=config, frames=33, height=64, width=96, references=1, global_batch=1, batch=1,
        gradient_checkpointing=False,
    )
    script = PEAK.format(
        helpers=str(HELPERS), content=content, cache=str(tmp_path / "cache"),
        small=str(make_cache(tmp_path / "small")), state=str(tmp_path / "state"),
    )
    said = tmp_path / "said"
    process = forked.start(forked.python, ["-c", script], {"OMP_NUM_THREADS": "1"}, said)
    process.join()
    assert process.exitcode == 0, said.read_text()
    measured = float(said.read_text().rpartition("PEAK")[2]) / GIB
    twice = read(StageRecipe, {**content, "height": 128, "width": 192})  # as 8x8 pixels a latent
    planned = plan(twice, Assumptions(gpus=1, overhead=0.0)).memory_per_gpu
    assert measured > 0.2  # large enough that what the allocator rounds up does not count
    assert planned / 1.5 < measured < planned * 1.5, (planned, measured)


def test_stages_of_the_paper_are_whole_recipes():
    stages = {}
    for name in recipe_files():
        content = load_recipe(name)[1]
        if content["trainer"].endswith("training.loop:train"):
            stages[name] = read_stage({"name": name, **content})
    rates = {name: made.learning_rate for name, made in stages.items()}
    assert rates["cogvideox_stage1"] == 1e-5
    assert rates["cogvideox_stage2"] == rates["cogvideox_stage3"] == 5e-6
    assert {"cogvideox_multi_stage1", "cogvideox_tryon", "cogvideox_background"} <= set(stages)
    with_pretraining, scratch = (
        load_recipe(f"cogvideox_multi_stage1{end}")[1] for end in ("", "_scratch")
    )
    differing = {k for k in with_pretraining if with_pretraining[k] != scratch.get(k)}
    assert differing <= {"description", "init", "components"}
    with torch.device("meta"):
        built = network.build(stages["cogvideox_stage1"])
        wan = network.build(stages["wan_stage2"])
    assert sum(p.numel() for p in built.parameters()) == 5_570_283_072
    # Wan2.1-T2V-1.3B has 1,418,996,800; the AdaLN form adds a projection and a table a block.
    assert sum(p.numel() for p in wan.parameters()) == (
        1_418_996_800 + 1536 * 6 * 1536 + 6 * 1536 + 30 * 6 * 1536
    )


def test_rate_rises_and_falls_linearly_to_nothing():
    made = stage(learning_rate=1.0, warmup=2, steps=10)
    rates = [made.rate(step) for step in range(10)]
    assert rates[0] == 0.5 and rates[1] == pytest.approx(0.9)
    assert rates[9] == pytest.approx(0.1)
    falls = {round(a - b, 6) for a, b in zip(rates[1:], rates[2:], strict=False)}
    assert falls == {0.1}


def test_plan_on_the_command_line_is_printed_and_json(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    content = recipe(tmp_path, height=32, width=48)
    path.write_text(json.dumps(content))
    main_arguments = ["train", str(path), "--plan", "--gpus", "2"]
    for option in ([], ["--json"]):
        with suppress(SystemExit):
            main([*main_arguments, *option])
    said = capsys.readouterr().out
    assert "parameters" in said and "GPU-hours" in said
    values = json.loads(said[said.index("{\n"):])
    assert values["samples"] == 24 and values["assumptions"]["gpus"] == 2
    slow = loop.make_plan(content, gpus=2, mfu=0.2)
    assert slow.hours == pytest.approx(2 * values["hours"])
    with pytest.raises(SystemExit) as stopped:
        main([*main_arguments, "--strategy", "zero"])
    assert stopped.value.code == 2 and "ddp, fsdp, zero2" in capsys.readouterr().err


def test_released_recipes_have_the_released_values():
    made = {name: read_stage({"name": name, **load_recipe(name)[1]}) for name in (
        "cogvideox_stage1", "cogvideox_multi_stage2", "wan_stage1", "wan_stage2",
    )}
    stage1, multi = made["cogvideox_stage1"], made["cogvideox_multi_stage2"]
    assert stage1.ema == multi.ema == 0.9999 and multi.learning_rate == 1e-5
    assert stage1.warmup == stage1.steps // 100
    assert not stage1.decay_all and not multi.decay_all
    # SAT: 5 % of the rate for 100 updates, then the warm-up's rate, then down to 1 %.
    assert stage1.rate(0) == stage1.rate(99) == pytest.approx(0.05e-5)
    assert stage1.rate(100) == pytest.approx(1e-5 * 101 / 1625)
    assert stage1.rate(1624) == pytest.approx(1e-5) and stage1.rate(1625) < stage1.rate(1624)
    assert multi.rate(99) == pytest.approx(0.05e-5) and multi.rate(100) == pytest.approx(0.909e-5)
    for name, each in made.items():
        if each.sat_decay:
            peak = each.learning_rate
            assert each.rate(each.steps - 1) == pytest.approx(0.01 * peak, rel=0.02), name
            half = each.rate(each.steps // 2 - 1)
            assert half == pytest.approx(0.51 * peak, rel=0.001), name
    # Only a single person's background is removed by chance there.
    assert stage1.background_removed == 0.9 and multi.background_removed == 1.0
    assert load_recipe("pairs_cache")[1]["keep_background"]
    for name in ("wan_stage1", "wan_stage2"):
        wan = made[name]
        assert (wan.betas, wan.weight_decay, wan.clip, wan.ema) == ((0.9, 0.999), 0.01, 0, 0)
        assert wan.background_removed == 0.9 and wan.decay_all and wan.slow_start == 0
        assert wan.text_dropout == 0 and wan.reference_dropout == 0.1 and wan.lora_feed_forward
        assert wan.warmup == min(1000, wan.steps // 20)
        assert wan.rate(wan.warmup - 1) == wan.rate(wan.warmup) == wan.learning_rate
        # min((step + 1) (1 - 1e-7 / lr) / warm-up + 1e-7 / lr, 1) of the peak, lr = 1e-5
        assert wan.rate(0) == pytest.approx(1e-7 + 9.9e-9)
        assert wan.rate(499) == pytest.approx(1e-5 * (0.5 * 0.99 + 0.01))
        half = (wan.steps + wan.warmup) // 2
        assert wan.rate(half) == pytest.approx(0.5e-5, rel=1e-3)
        assert wan.rate(wan.steps - 1) < 1e-5 / (wan.steps - wan.warmup) * 1.001
        assert wan.reference_adaln == wan.reference_ffn_quirk == (name == "wan_stage2")
    assert load_recipe("wan_pairs_cache")[1]["fps"] == 16


def test_every_recipe_of_the_released_cogvideox_form_has_its_values():
    """configs/training/*.yaml, SAT's defaults and data_video.py of the release."""
    rates = {name: 5e-6 for name in ("stage2", "stage3", "tryon", "background")} | {
        name: 1e-5 for name in ("stage1", "multi_stage1", "multi_stage1_scratch", "multi_stage2")
    }
    ours = {"cogvideox_stage1_short_average"}
    assert {n for n in recipe_files() if n.startswith("cogvideox")} == ours | {
        f"cogvideox_{name}" for name in rates
    }
    for name, rate in rates.items():
        made = read_stage({"name": name, **load_recipe(f"cogvideox_{name}")[1]})
        assert (made.learning_rate, made.ema, made.slow_start) == (rate, 0.9999, 100), name
        assert made.warmup == made.steps // 100 and made.sat_decay and not made.decay_all, name
        assert (made.betas, made.weight_decay, made.clip) == ((0.9, 0.95), 1e-4, 0.1), name
        assert (made.text_dropout, made.reference_dropout) == (0.1, 0.1), name
        one = name in ("stage1", "stage2", "stage3")
        assert made.background_removed == (0.9 if one else 1.0), name
        assert (made.frames, made.height, made.width, made.precision) == (49, 480, 720, "bf16")


def test_without_decay_all_biases_and_norms_do_not_decay():
    """As SwissArmyTransformer groups the parameters of the released CogVideoX form."""
    network = build_transformer({
        "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "time_embed_dim": 8,
        "text_embed_dim": 8, "in_channels": 4, "out_channels": 4, "sample_height": 4,
        "sample_width": 6, "sample_frames": 9,
    })
    accelerator = SimpleNamespace(is_fsdp2=False)
    for decay_all in (True, False):
        (made,) = make_optimisers(network, stage(decay_all=decay_all), accelerator)
        still = {
            id(p) for group in made.param_groups if not group["weight_decay"]
            for p in group["params"]
        }
        names = {n for n, p in network.named_parameters() if id(p) in still}
        expected = {
            n for n, p in network.named_parameters() if n.endswith("bias") or p.ndim == 1
        }
        assert names == (set() if decay_all else expected)
        assert sum(len(g["params"]) for g in made.param_groups) == len(list(network.parameters()))
    assert "transformer_blocks.0.norm1.norm.weight" in names
    assert "transformer_blocks.0.norm1.linear.weight" not in names
