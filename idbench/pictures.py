"""Users' picture files as upright RGB; references and masks are opened only here."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from idbench.errors import UserError

BACKDROP = (255, 255, 255, 255)
"""Colour behind transparent parts: white, as in viewers and on web pages."""
_PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


class UnreadablePicture(UserError):
    """A picture file that is missing, damaged, or no picture.

    Attributes:
        kind: name of the error below, for a short reason.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_rgb(source: Path | IO[bytes]) -> Image.Image:
    """A picture as 8-bit RGB at its full size, turned as its camera was held (EXIF).

    Transparent parts are laid over white. 16-bit grey keeps its high byte. Of several pictures in
    a file the first is read. Colour profiles are not applied.

    Raises:
        UnreadablePicture: missing, damaged, not a picture, too large, or with float pixels.
    """
    try:
        with Image.open(source) as opened:
            if opened.mode == "F":
                raise ValueError("floating-point pixels have no agreed white level")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):
                # PIL's own conversion clips at 255, which makes nearly everything white.
                high = np.clip(np.asarray(upright, np.int64) >> 8, 0, 255).astype(np.uint8)
                return Image.fromarray(high).convert("RGB")
            if _transparent(upright):
                upright = upright.convert("RGBA")
                behind = Image.new("RGBA", upright.size, BACKDROP)
                upright = Image.alpha_composite(behind, upright)
            return upright.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # PIL does not document what damaged files raise
        raise _unreadable(source, error) from error


def read_rgb(source: Path | IO[bytes]) -> np.ndarray:
    """As `open_rgb`: uint8 (height, width, 3), writable.

    Raises:
        UnreadablePicture: as `open_rgb`.
    """
    return np.array(open_rgb(source))


def read_converted(source: Path | IO[bytes]) -> np.ndarray:
    """A picture as Pillow's `convert("RGB")` gives it, which published scripts use.

    Not turned, transparency dropped, 16 bits clipped: what is meant is `read_rgb`.

    Raises:
        UnreadablePicture: as `open_rgb`.
    """
    try:
        with Image.open(source) as opened:
            return np.array(opened.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # PIL does not document what damaged files raise
        raise _unreadable(source, error) from error


def is_plain(path: Path) -> bool:
    """Whether `open_rgb` returns the stored pixels unchanged; reads only the header.

    False for turned or transparent pictures and for more than 8 bits; earlier versions read those
    differently.

    Raises:
        UnreadablePicture: missing, damaged or no picture.
    """
    try:
        with Image.open(path) as opened:
            # A PNG's EXIF may come after its pixels: only the header is read.
            turned = "exif" in opened.info or "xmp" in opened.info or opened.format == "TIFF"
            if turned and opened.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return False
            return opened.mode in _PLAIN_MODES and not _transparent(opened)
    except Exception as error:
        raise _unreadable(path, error) from error


def _transparent(picture: Image.Image) -> bool:
    return picture.mode in _ALPHA_MODES or "transparency" in picture.info


def _unreadable(source: Path | IO[bytes], error: Exception) -> UnreadablePicture:
    kind = type(error).__name__
    name = source if isinstance(source, str | Path) else "in memory"
    return UnreadablePicture(
        f"The image {name} cannot be read ({kind}); replace or remove it.", kind
    )
