"""A cache of random latents and a recipe for a tiny network: stages that train in a second."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file

from idbench.files import write_json
from idbench.models.concat_id.training.samples import VERSION, sample_path

TRANSFORMER = {
    "family": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "time_embed_dim": 16, "text_embed_dim": 12, "in_channels": 4, "out_channels": 4,
    "sample_height": 4, "sample_width": 6, "sample_frames": 9, "max_text_seq_length": 8,
}
WAN = {
    "family": "wan", "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2,
    "ffn_dim": 32, "in_channels": 4, "out_channels": 4, "text_dim": 12, "freq_dim": 16,
}


def make_cache(
    folder: Path, samples: int = 9, references: int = 2, draws: int = 2,
    latents: tuple[int, ...] = (3, 4, 4, 6), text: tuple[int, int] = (8, 12),
    kind: str = "face",
) -> Path:
    """A finished cache of random samples, by default 9 frames of 16x24; two are held out."""
    count, _, height, width = latents
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(samples):
        key = f"{number:02x}{number:038x}"
        path = sample_path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            "latents": torch.randn(latents, generator=generator).half(),
            "text": torch.randn(text, generator=generator).half(),
        }
        for m in range(references):
            for k in range(2):
                buffer = io.BytesIO()
                picture = rng.integers(0, 256, (4 * height, 4 * width, 3)).astype(np.uint8)
                Image.fromarray(picture).save(buffer, format="PNG")
                tensors[f"image.{m}.{k}"] = torch.frombuffer(
                    bytearray(buffer.getvalue()), dtype=torch.uint8
                )
                encoded = torch.randn(draws, *latents[1:], generator=generator)
                tensors[f"encoded.{m}.{k}"] = encoded.half()
        about = {
            "kinds": ",".join([kind] * references), "candidates": ",".join(["2"] * references)
        }
        save_file(tensors, path, about)
        rows.append({
            "key": key, "video": f"{number}.mp4", "caption": "a person smiles", **about,
            "split": "validation" if number < 2 else "training",
        })
    pd.DataFrame(rows).to_parquet(folder / "index.parquet")
    write_json(folder / "cache.json", {
        "version": VERSION, "frames": 4 * count - 3, "height": 4 * height, "width": 4 * width,
        "fps": 8.0,
        "references": references, "draws": draws, "parser": "none", "seed": 0, "weights": {},
        "components": "embedded",
    })
    return folder


def train_to_be_killed(cache: Path, changes: dict[str, Any], state: Path) -> None:
    """Train, and wait in the middle of the checkpoint of step 4."""
    from accelerate import Accelerator

    from idbench.models.concat_id.training import loop

    torch.set_num_threads(1)
    save = Accelerator.save_state

    def slow(self: Accelerator, folder: str) -> None:
        save(self, folder)
        if "00000004" in folder:
            time.sleep(600)

    Accelerator.save_state = slow
    loop.train(recipe(cache, **changes), state)


def recipe(cache: Path, **changes: Any) -> dict[str, Any]:
    """A stage of six steps on `make_cache`'s samples, on the CPU, with cached references."""
    return {
        "name": "tiny", "trainer": "idbench.models.concat_id.training.loop:train",
        "network": TRANSFORMER, "cache": str(cache), "frames": 9, "height": 16, "width": 24,
        "references": 2, "reference_noise": "cached", "steps": 6, "global_batch": 4, "batch": 2,
        "learning_rate": 1e-3, "ema": 0.9, "precision": "no", "workers": 0, "device": "cpu",
        "log_every": 1, "checkpoint_every": 2, "validate_every": 0, "seed": 3, **changes,
    }
