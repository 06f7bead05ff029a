"""Seconds and model FLOPs utilisation at the paper's size, with random weights: for one GPU.

    python benchmarks/paper_scale.py                    # CogVideoX-5B's shape, 49 frames of 480x720
    python benchmarks/paper_scale.py --parts denoise    # sampling alone
    python benchmarks/paper_scale.py --tiny             # the same code on a CPU, in seconds

Parts:

- denoise: a step of sampling in bfloat16, both branches of guidance together, with 0 to 3
  references, and the step of diffusers' own CogVideoXPipeline.
- lora, full: a step of training with gradient checkpointing and bfloat16, one sample, one
  reference, without the average of the weights. Full training of CogVideoX-5B holds 16 bytes a
  parameter: 83 GiB before activations, so one GPU needs 141 GB; several divide it.

FLOPs are those of the model, counted by formula (`forward_flops`): what checkpointing computes
again is not in them. Utilisation is their share of `--peak-tflops`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXPipeline

from idbench.models.concat_id.networks import build_scheduler, build_transformer
from idbench.models.concat_id.pipeline import ConcatIDPipeline
from idbench.models.concat_id.training import loop, samples
from idbench.models.concat_id.training.network import NETWORKS
from idbench.models.concat_id.training.recipe import StageRecipe, read

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from tiny_stage import TRANSFORMER, make_cache, recipe  # noqa: E402

PARTS = ("denoise", "lora", "full")
TINY = {**TRANSFORMER, "sample_height": 8, "sample_width": 12}
TINY_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 8), "down_block_types": ("CogVideoXDownBlock3D",) * 3,
    "up_block_types": ("CogVideoXUpBlock3D",) * 3, "norm_num_groups": 2, "latent_channels": 4,
    "layers_per_block": 1,
}
Row = dict[str, Any]


def forward_flops(config: dict[str, Any], frames: int, references: int, area: int) -> float:
    """Operations of one forward pass of one sample, a multiply-add counted as two.

    A layer of width d on T tokens: 8 d^2 T for queries, keys, values and output, 16 d^2 T for the
    feed-forward layer, 4 d T^2 for attention. What is outside the layers is under one per cent.

    Args:
        frames, references: latent frames. area: tokens of one.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    tokens = config["max_text_seq_length"] + (frames + references) * area
    return config["num_layers"] * (24.0 * width**2 * tokens + 4.0 * width * tokens**2)


def training_flops(forward: float, lora: bool) -> float:
    """A backward pass costs two forward passes; one, where the weights get no gradient."""
    return forward * (2.0 if lora else 3.0)


class Bench:
    """One run: sizes, device, and the rows measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        config = dict(TINY if options.tiny else NETWORKS["cogvideox-5b"])
        self.network = dict(config)
        config.pop("family")
        self.config = config
        self.latents = (3, 4, 8, 12) if options.tiny else (13, 16, 60, 90)
        frames, _, height, width = self.latents
        self.frames, self.area = frames, height * width // 4
        self.dtype = torch.float32 if options.tiny else torch.bfloat16
        self.rows: list[Row] = []

    def add(self, what: str, references: int, seconds: float, flops: float) -> None:
        """Note one measurement and say it."""
        used = flops / seconds / (self.options.peak_tflops * 1e12)
        row = {
            "what": what, "references": references, "seconds": seconds, "flops": flops,
            "utilisation": used, "peak_gib": self.peak(),
        }
        self.rows.append(row)
        print(f"{what}, {references} references: {seconds:.4f} s, MFU {used:.1%}", flush=True)

    def peak(self) -> float | None:
        """GiB of GPU memory held at most since the last call; None on a CPU."""
        if self.device.type != "cuda":
            return None
        found = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return found

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], object], repeats: int) -> float:
        """Median seconds of one call, after two to warm up."""
        found = []
        for number in range(repeats + 2):
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            if number >= 2:
                found.append(time.perf_counter() - start)
        return statistics.median(found)

    # -- sampling

    def denoise(self) -> None:
        """Steps of sampling with 0 to 3 references, and of diffusers' pipeline."""
        torch.manual_seed(0)
        with self.device:
            before = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype)
            transformer = build_transformer(self.config).eval()
            vae = AutoencoderKLCogVideoX(**(TINY_VAE if self.options.tiny else {})).eval()
            torch.set_default_dtype(before)
        ours = ConcatIDPipeline(None, None, vae, transformer, build_scheduler())
        theirs = CogVideoXPipeline(None, None, vae, transformer, build_scheduler())
        for pipeline in (ours, theirs):
            pipeline.set_progress_bar_config(disable=True)
        frames, channels, rows, columns = self.latents
        height, width = rows * ours.compression, columns * ours.compression
        tokens, text_width = self.config["max_text_seq_length"], self.config["text_embed_dim"]
        text = torch.randn(1, tokens, text_width, device=self.device, dtype=self.dtype)
        steps = self.options.steps
        for references in self.options.references:
            held = torch.randn(
                1, references, channels, rows, columns, device=self.device, dtype=self.dtype
            )
            took = self.timed(lambda held=held: ours.sample_latents(
                text, held if held.shape[1] else None, [0], steps, 6.0, frames, height, width
            ), self.options.repeats)
            flops = 2 * forward_flops(self.config, frames, references, self.area)
            self.add("denoising step", references, took / steps, flops)
        took = self.timed(lambda: theirs(
            prompt_embeds=text, negative_prompt_embeds=torch.zeros_like(text), height=height,
            width=width, num_frames=(frames - 1) * ours.temporal_compression + 1,
            num_inference_steps=steps, guidance_scale=6.0, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ), self.options.repeats)
        flops = 2 * forward_flops(self.config, frames, 0, self.area)
        self.add("denoising step of CogVideoXPipeline", 0, took / steps, flops)

    # -- training

    def train(self, lora: bool) -> None:
        """Steps of the training loop on one sample with one reference."""
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)
        frames, _, rows, columns = self.latents
        text = (self.config["max_text_seq_length"], self.config["text_embed_dim"])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cache = make_cache(
                folder / "cache", samples=4, references=1, latents=self.latents, text=text
            )
            content = recipe(
                cache, network=self.network, frames=4 * frames - 3, height=4 * rows,
                width=4 * columns, references=1, global_batch=1, batch=1, steps=1_000_000, ema=0.0,
                precision="no" if self.options.tiny else "bf16", gradient_checkpointing=True,
                lora_rank=(4 if self.options.tiny else 128) if lora else 0, log_every=1_000_000,
                workers=0 if self.options.tiny else 2, learning_rate=1e-6,
                device="cpu" if self.device.type == "cpu" else "auto",
            )
            made = read(StageRecipe, content)
            session = loop.Session(made, samples.Cache.open(cache), folder / "state")
            batches = session.batches()
            took = self.timed(lambda: session.advance(batches), self.options.repeats)
        forward = forward_flops(self.config, frames, 1, self.area)
        self.add("training step, " + ("LoRA" if lora else "full"), 1, took,
                 training_flops(forward, lora))


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| what | references | seconds | TFLOPs | MFU | GPU memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "problem" in row:
            lines.append(f"| {row['what']} | | {row['problem']} | | | |")
            continue
        memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f} GiB"
        lines.append(
            f"| {row['what']} | {row['references']} | {row['seconds']:.3f} | "
            f"{row['flops'] / 1e12:.1f} | {row['utilisation']:.1%} | {memory} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny networks in float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--references", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="bfloat16, dense")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.tiny:
        parser.error("the paper's size needs a GPU; --tiny runs on a CPU")
    bench = Bench(options)
    for part in options.parts:
        try:
            if part == "denoise":
                bench.denoise()
            else:
                bench.train(lora=part == "lora")
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            bench.rows.append({"what": part, "problem": "does not fit into this GPU's memory"})
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU"
    print(f"\n{name}, {options.peak_tflops:g} TFLOP/s assumed as its peak\n\n{table(bench.rows)}")
    if options.json:
        options.json.write_text(json.dumps({"device": name, "rows": bench.rows}, indent=2) + "\n")
    return bench.rows


if __name__ == "__main__":
    main()
