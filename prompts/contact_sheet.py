"""Contact sheets of the avatars and their suite, for the documentation.

    python -m idbench.prompts.contact_sheet [--out docs/pictures]

Every image is rendered from the suite's data; no model generates anything in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EXPRESSIONS,
    MOTIONS,
    Garment,
    Person,
    Scene,
    scene_of,
)
from idbench.prompts.build import SUITE
from idbench.suite import load_suite

HEIGHT, WIDTH = 128, 192
MARGIN, LINE, FONT_SIZE = 10, 15, 12
INK, PAPER = (60, 58, 54), (255, 255, 255)


def sheet(tiles: Sequence[np.ndarray], labels: Sequence[str], columns: int) -> np.ndarray:
    """Tiles of one size in a grid, each over its label (broken into up to three lines): uint8 RGB
    on white."""
    height, width = tiles[0].shape[:2]
    font = ImageFont.load_default(FONT_SIZE)
    broken = [_broken(label, width, font.getlength) for label in labels]
    step = height + MARGIN + LINE * max(map(len, broken)) + 4
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * (width + MARGIN) + MARGIN, rows * step + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (tile, lines) in enumerate(zip(tiles, broken, strict=True)):
        x = MARGIN + index % columns * (width + MARGIN)
        y = MARGIN + index // columns * step
        page.paste(Image.fromarray(tile), (x, y))
        for number, line in enumerate(lines):
            draw.text((x, y + height + 3 + number * LINE), line, fill=INK, font=font)
    return np.asarray(page)


def identities() -> np.ndarray:
    """The reference portraits of the suite."""
    known = load_suite(SUITE).identities
    tiles = [np.asarray(Image.open(SUITE / "references" / f"{name}.png").resize((144, 144)))
             for name in known]
    return sheet(tiles, list(known), 8)


def split(name: str, count: int = 6) -> np.ndarray:
    """Scenes that fulfil prompts of a split, each of other people: what a perfect model could
    show."""
    samples = load_suite(SUITE).samples(name, count)
    tiles = [_frame(scene_of(s.truth, [int(p[1:]) for p in s.identities], seed=index))
             for index, s in enumerate(samples)]
    return sheet(tiles, [s.prompt for s in samples], 3)


def expressions(identity: int = 7) -> np.ndarray:
    """One person with each expression and each head motion."""
    faces = [Scene((Person(identity, e),), seed=1) for e in EXPRESSIONS]
    moves = [Scene((Person(identity, "neutral", m),), seed=1) for m in MOTIONS]
    return sheet([_frame(s) for s in (*faces, *moves)], [*EXPRESSIONS, *MOTIONS], 7)


def backgrounds() -> np.ndarray:
    """Each background with another person."""
    garments = (Garment("red", "striped"), Garment("blue", emblem="star"),
                Garment("yellow", "dotted"), Garment("green", emblem="heart"),
                Garment("white", "checked"), Garment("purple", emblem="circle"),
                Garment("orange"), Garment("pink", "striped"), Garment("grey", "checked"))
    scenes = [Scene((Person(2 * i, "smile", "still", garments[i]),), name, seed=i)
              for i, name in enumerate(BACKGROUNDS)]
    return sheet([_frame(s) for s in scenes], list(BACKGROUNDS), 5)


def references() -> np.ndarray:
    """Garment and background references."""
    files = [file for kind in ("garment", "background")
             for file in sorted((SUITE / "references").glob(f"{kind}_*.png"))]
    tiles = []
    for file in files:
        picture = Image.open(file).convert("RGB")
        picture.thumbnail((144, 144))
        tile = Image.new("RGB", (144, 144), (240, 238, 234))
        tile.paste(picture, (0, (144 - picture.height) // 2))
        tiles.append(np.asarray(tile))
    return sheet(tiles, [f.stem.partition("_")[2].replace("_", " ") for f in files], 8)


SHEETS: dict[str, Callable[[], np.ndarray]] = {
    "identities": identities, "expressions": expressions, "backgrounds": backgrounds,
    "references": references, "single": lambda: split("single"), "multi": lambda: split("multi"),
    "multi3": lambda: split("multi3", 3),
}


def _frame(scene: Scene) -> np.ndarray:
    """The frame of a clip in which its motion shows."""
    clip = render_clip(scene, frames=9, height=HEIGHT, width=WIDTH)
    return clip.frames[int(np.argmax(np.abs(clip.yaw).max(axis=1)))]


def _broken(text: str, width: int, length: Callable[[str], float]) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:4]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="idbench.prompts.contact_sheet", description="Pictures of the avatars and the suite.")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, make in SHEETS.items():
        path = arguments.out / f"{name}.webp"
        Image.fromarray(make()).save(path, quality=88)
        print(path)


if __name__ == "__main__":
    main()
