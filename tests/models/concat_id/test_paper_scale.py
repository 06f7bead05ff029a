"""The benchmark for a GPU runs on a CPU with tiny networks, and counts operations rightly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from idbench.models.concat_id.training import network
from idbench.models.concat_id.training.measure import measure
from idbench.models.concat_id.training.recipe import StageRecipe, read

PATH = Path(__file__).parents[3] / "benchmarks" / "paper_scale.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("paper_scale", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_runs_on_a_cpu_with_tiny_networks(bench, tmp_path, capsys):
    rows = bench.main([
        "--tiny", "--device", "cpu", "--steps", "2", "--repeats", "1", "--peak-tflops", "0.01",
        "--json", str(tmp_path / "rows.json"),
    ])
    assert [(row["what"], row["references"]) for row in rows] == [
        *(("denoising step", references) for references in range(4)),
        ("denoising step of CogVideoXPipeline", 0), ("training step, LoRA", 1),
        ("training step, full", 1),
    ]
    for row in rows:
        assert row["seconds"] > 0
        assert row["utilisation"] == pytest.approx(row["flops"] / row["seconds"] / 1e10)
    said = capsys.readouterr().out
    assert said.count("\n| ") >= len(rows)
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows


@pytest.mark.parametrize("references", [0, 3])
def test_the_formula_is_what_pytorch_counts_at_full_width(bench, references):
    """Two layers of CogVideoX-5B's width on 49 frames of 480x720, on the meta device."""
    config = {**network.NETWORKS["cogvideox-5b"], "num_layers": 2}
    content = {"name": "x", "trainer": "x:y", "network": config}
    with torch.device("meta"):
        transformer = network.build(read(StageRecipe, content))
    counted = measure(transformer, 1, 13, references, 60, 90, (226, 4096), torch.bfloat16)
    del config["family"]
    expected = bench.forward_flops(config, 13, references, 30 * 45)
    assert counted.forward == pytest.approx(expected, rel=0.01)
    assert counted.forward + counted.backward == pytest.approx(
        bench.training_flops(expected, lora=False), rel=0.06
    )


def test_the_papers_size_is_refused_on_a_cpu(bench, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--device", "cpu"])
    assert "needs a GPU; --tiny runs on a CPU" in capsys.readouterr().err


