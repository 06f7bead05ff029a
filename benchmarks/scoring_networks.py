"""Files of full-size random networks in the true layouts, for the benchmarks of scoring.

Random weights cost what trained ones cost. Layouts: `tests/helpers/true_layouts.py`.
The detector is MTCNN, whose weights lie in facenet-pytorch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/helpers")]
CLIP = "ViT-L-14"


def make_weights(folder: Path) -> list[str]:
    """Write the files where they are missing; returns the values of `--weights`."""
    from true_layouts import ir_101_shapes, random_state, viclip_shapes

    folder.mkdir(parents=True, exist_ok=True)
    curricular, viclip, clip = folder / "ir101.bin", folder / "viclip.pth", folder / "clip.pt"
    if not curricular.exists():
        torch.save(random_state(ir_101_shapes()), curricular)
    if not viclip.exists():
        torch.save(random_state(viclip_shapes()), viclip)
    if not clip.exists():
        import open_clip

        torch.manual_seed(0)
        torch.save(open_clip.create_model(CLIP, load_weights=False).state_dict(), clip)
    return [
        f"curricularface=curricularface:{curricular}", f"viclip=viclip:{viclip}",
        f"clip=open_clip:{CLIP}:{clip}",
    ]


def with_ir_50(folder: Path) -> None:
    """Let this process's embedded ArcFace be an IR-50 of the published size, random too."""
    from idbench import embedded
    from idbench.metrics.networks.recogniser import DEPTHS, build_recogniser

    config = {"backbone": "iresnet", "layers": DEPTHS[50], "widths": (64, 128, 256, 512),
              "size": 112, "embedding": 512}
    os.environ["IDBENCH_WEIGHTS"] = str(folder)
    if "arcface" not in embedded.entries():
        torch.manual_seed(0)
        embedded.save_entry(
            "arcface", build_recogniser(config).state_dict(), recipe="random", seed=0, steps=0,
            config=config, measured={}, half=False,
        )
