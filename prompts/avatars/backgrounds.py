"""The scenes behind the avatars, drawn with Pillow and slightly out of focus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]


def background_image(name: str, seed: int, height: int, width: int) -> np.ndarray:
    """float32 (height, width, 3) in [0, 1]. `seed` moves details, never the kind of scene."""
    rng = np.random.default_rng([32452843, seed])
    w, h = 288, 192  # one canvas for all sizes, so that a scene looks alike at each
    image = Image.new("RGB", (w, h))
    _PAINTERS[name](image, ImageDraw.Draw(image), rng, w, h)
    image = image.filter(ImageFilter.GaussianBlur(1.6))
    ratio = max(width / w, height / h)
    image = image.resize((round(w * ratio), round(h * ratio)), Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, np.float32) / 255.0


def _gradient(image: Image.Image, top: Colour, bottom: Colour, until: float = 1.0) -> None:
    """Vertical gradient over the upper `until` of the image."""
    w, h = image.size
    rows = np.linspace(0, 1, max(int(h * until), 1))[:, None, None]
    ramp = np.array(top) * (1 - rows) + np.array(bottom) * rows
    block = np.broadcast_to(ramp, (len(rows), w, 3)).astype(np.uint8)
    image.paste(Image.fromarray(np.ascontiguousarray(block)), (0, 0))


def _vary(colour: Colour, rng: np.random.Generator, amount: float = 12) -> Colour:
    r, g, b = (int(np.clip(c + rng.normal(0, amount), 0, 255)) for c in colour)
    return r, g, b


def _clouds(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, low: int, high: int
) -> None:
    for _ in range(3):
        x, y = rng.integers(0, w), rng.integers(low, high)
        for _ in range(4):
            dx, dy, r = rng.integers(-22, 22), rng.integers(-4, 5), rng.integers(7, 13)
            draw.ellipse(
                (x + dx - 1.6 * r, y + dy - r * 0.7, x + dx + 1.6 * r, y + dy + r * 0.7),
                fill=(240, 244, 248),
            )


def _studio(image, draw, rng, w, h):
    base = np.array(
        [(176, 182, 190), (196, 186, 172), (150, 166, 184), (188, 176, 190)][rng.integers(4)]
    )
    yy, xx = np.mgrid[0:h, 0:w]
    glow = np.exp(-(((xx - w / 2) / (0.5 * w)) ** 2 + ((yy - 0.45 * h) / (0.7 * h)) ** 2))
    image.paste(
        Image.fromarray(np.clip(base * (0.66 + 0.5 * glow[..., None]), 0, 255).astype(np.uint8))
    )


def _park(image, draw, rng, w, h):
    _gradient(image, (126, 178, 226), (206, 228, 240), 0.55)
    _clouds(draw, rng, w, 8, 45)
    draw.rectangle((0, 0.56 * h, w, h), fill=(106, 160, 72))
    draw.rectangle((0, 0.80 * h, w, h), fill=(92, 146, 62))
    for x in np.linspace(-10, w + 10, 8) + rng.integers(-10, 10, 8):
        top, size = rng.integers(38, 66), rng.integers(26, 38)
        draw.rectangle((x - 4, 0.40 * h, x + 4, 0.64 * h), fill=(98, 68, 44))
        for _ in range(6):
            dx, dy = rng.integers(-16, 17), rng.integers(-10, 18)
            draw.ellipse(
                (x + dx - size * 0.6, top + dy - size * 0.5, x + dx + size * 0.6,
                 top + dy + size * 0.6),
                fill=_vary((52, 118, 50), rng),
            )


def _beach(image, draw, rng, w, h):
    _gradient(image, (92, 170, 228), (196, 228, 240), 0.46)
    sun = rng.integers(30, w - 30)
    draw.ellipse((sun - 15, 14, sun + 15, 44), fill=(255, 242, 176))
    draw.rectangle((0, 0.46 * h, w, 0.66 * h), fill=(36, 126, 168))
    for _ in range(16):
        x, y = rng.integers(0, w), rng.uniform(0.48, 0.65) * h
        draw.line((x, y, x + rng.integers(12, 32), y), fill=(150, 206, 222), width=2)
    draw.rectangle((0, 0.66 * h, w, h), fill=(232, 206, 152))
    draw.line((0, 0.66 * h, w, 0.66 * h), fill=(250, 248, 238), width=5)


def _city(image, draw, rng, w, h):
    _gradient(image, (150, 166, 190), (222, 214, 206))
    x = -6
    while x < w:
        width, top = int(rng.integers(26, 46)), int(rng.integers(14, 80))
        shade = _vary((106, 112, 126), rng, 16)
        draw.rectangle((x, top, x + width, h), fill=shade)
        for wy in range(top + 7, h, 13):
            for wx in range(x + 5, x + width - 6, 10):
                lit = rng.uniform() < 0.35
                draw.rectangle(
                    (wx, wy, wx + 5, wy + 7), fill=(246, 220, 144) if lit else (66, 78, 98)
                )
        x += width + 3


def _library(image, draw, rng, w, h):
    image.paste((92, 58, 34), (0, 0, w, h))
    books = [(150, 44, 40), (38, 84, 120), (46, 106, 66), (190, 150, 74), (104, 60, 112),
             (214, 200, 170)]
    for row in range(5):
        y = row * 40
        x = int(rng.integers(0, 6))
        while x < w:
            width, high = int(rng.integers(6, 13)), int(rng.integers(25, 33))
            draw.rectangle(
                (x, y + 35 - high, x + width - 2, y + 35), fill=_vary(books[rng.integers(6)], rng)
            )
            x += width
        draw.rectangle((0, y + 35, w, y + 40), fill=(128, 84, 50))


def _kitchen(image, draw, rng, w, h):
    image.paste((232, 228, 218), (0, 0, w, h))
    for y in range(72, 132, 12):
        for x in range(-6 + 8 * (y // 12 % 2), w, 16):
            draw.rectangle((x, y, x + 14, y + 10), fill=_vary((186, 214, 214), rng, 6))
    for x in range(2, w, 58):
        draw.rectangle((x, 4, x + 53, 66), fill=(176, 124, 78), outline=(134, 90, 54), width=3)
        draw.ellipse((x + 42, 50, x + 48, 56), fill=(70, 60, 50))
    draw.rectangle((0, 132, w, 142), fill=(92, 92, 96))
    draw.rectangle((0, 142, w, h), fill=(160, 110, 68))
    x = int(rng.integers(10, 40))
    draw.ellipse((x, 112, x + 24, 132), fill=(206, 62, 48))
    draw.rectangle((w - x - 20, 100, w - x, 132), fill=(64, 120, 170))


def _mountains(image, draw, rng, w, h):
    _gradient(image, (104, 158, 214), (226, 226, 224))
    for level, colour in ((0.20, (142, 152, 180)), (0.42, (100, 118, 144)), (0.66, (70, 98, 92))):
        xs = np.arange(-40, w + 80, 52)
        for x in xs + rng.integers(-12, 12, len(xs)):
            peak, half = level * h + rng.uniform(-8, 10), rng.uniform(46, 64)
            draw.polygon([(x - half, h), (x, peak), (x + half, h)], fill=colour)
            if level < 0.5:
                k = 0.20
                drop = (h - peak) * k
                draw.polygon(
                    [(x - half * k, peak + drop), (x, peak), (x + half * k, peak + drop),
                     (x, peak + 0.7 * drop)], fill=(244, 246, 250),
                )


def _night(image, draw, rng, w, h):
    _gradient(image, (10, 14, 46), (46, 50, 100))
    for _ in range(80):
        x, y, r = rng.integers(0, w), rng.integers(0, int(0.8 * h)), rng.choice([1, 1.5, 2.2])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 250, 230))
    x = int(rng.choice([rng.integers(24, 60), w - rng.integers(24, 60)]))
    draw.ellipse((x - 17, 15, x + 17, 49), fill=(248, 244, 214))
    draw.ellipse((x - 6, 11, x + 26, 43), fill=(16, 20, 54))
    draw.polygon(
        [(0, h), (0, 0.80 * h), (0.3 * w, 0.72 * h), (0.62 * w, 0.82 * h), (w, 0.74 * h), (w, h)],
        fill=(12, 18, 34),
    )


def _snow(image, draw, rng, w, h):
    _gradient(image, (176, 192, 212), (226, 232, 240), 0.6)
    draw.rectangle((0, 0.6 * h, w, h), fill=(240, 244, 250))
    for x in np.linspace(8, w - 8, 7) + rng.integers(-9, 9, 7):
        base, size = rng.uniform(0.60, 0.70) * h, rng.uniform(0.8, 1.2)
        for k in range(3):
            y, half = base - 26 * k * size, (28 - 7 * k) * size
            draw.polygon([(x - half, y), (x, y - 40 * size), (x + half, y)], fill=(44, 92, 78))
            draw.line((x - half * 0.8, y - 4, x, y - 36 * size), fill=(236, 242, 248), width=4)
    for _ in range(70):
        x, y, r = rng.integers(0, w), rng.integers(0, h), rng.uniform(1.2, 2.6)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))


_PAINTERS: dict[str, Callable[..., None]] = {
    "studio": _studio, "park": _park, "beach": _beach, "city": _city, "library": _library,
    "kitchen": _kitchen, "mountains": _mountains, "night sky": _night, "snow": _snow,
}
