"""Users' picture files as upright RGB; references and masks are opened only here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from idbench.errors import UserError

BACKDROP = (255, 255, 255, 255)
"""Colour behind transparent parts: white, as in viewers and on web pages."""
_PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
"""Brands in the first box of a file."""


class UnreadablePicture(UserError):
    """A picture file that is missing, damaged, or no picture; `kind` names the underlying error."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_rgb(source: Path | IO[bytes]) -> Image.Image:
    """A picture as 8-bit RGB at its full size, turned as its camera was held (EXIF).

    Transparent parts are laid over white, 16-bit grey keeps its high byte, of several pictures the
    first is read, and colour profiles are not applied. Raises UnreadablePicture: missing, damaged,
    not a picture, too large, with float pixels, or of a format that needs another package."""
    try:
        with open_picture(source) as opened:
            if opened.mode == "F":
                raise ValueError("floating-point pixels have no agreed white level")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):
                # PIL's own conversion clips at 255, which makes nearly everything white.
                high = np.clip(np.asarray(upright, np.int64) >> 8, 0, 255).astype(np.uint8)
                return Image.fromarray(high).convert("RGB")
            return over_white(upright).convert("RGB")
    except (MemoryError, UnreadablePicture):
        raise
    except Exception as error:  # PIL does not document what damaged files raise
        raise _unreadable(source, error) from error


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """The opened picture; only its header is read. Raises UnreadablePicture."""
    try:
        return Image.open(source)
    except MemoryError:
        raise
    except Exception as error:
        needed = _needed_package(source)
        if needed == "pillow-heif" and _registers_heif():
            return Image.open(source)
        if needed:
            raise UnreadablePicture(
                f"The picture {source} needs the package {needed}; install it with `pip install "
                f"{needed!r}`, or save the picture as PNG or JPEG.", type(error).__name__,
            ) from error
        raise _unreadable(source, error) from error


def over_white(picture: Image.Image) -> Image.Image:
    """`picture` with its transparent parts laid over white."""
    if not is_transparent(picture):
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, BACKDROP), picture)


def read_rgb(source: Path | IO[bytes]) -> np.ndarray:
    """As `open_rgb`: uint8 (height, width, 3), writable. Raises UnreadablePicture: as
    `open_rgb`."""
    return np.array(open_rgb(source))


def read_converted(source: Path | IO[bytes]) -> np.ndarray:
    """A picture as Pillow's `convert("RGB")` gives it, as published scripts read it: not turned,
    transparency dropped, 16 bits clipped. Prefer `read_rgb`."""
    try:
        with Image.open(source) as opened:
            return np.array(opened.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # PIL does not document what damaged files raise
        raise _unreadable(source, error) from error


def is_plain(path: Path) -> bool:
    """Whether `open_rgb` returns the stored pixels unchanged; reads only the header. False for
    turned or transparent pictures and for more than 8 bits, which earlier versions read
    differently."""
    try:
        with open_picture(path) as opened:
            # A PNG's EXIF may come after its pixels: only the header is read.
            turned = "exif" in opened.info or "xmp" in opened.info or opened.format == "TIFF"
            if turned and opened.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return False
            return opened.mode in _PLAIN_MODES and not is_transparent(opened)
    except UnreadablePicture:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def is_transparent(picture: Image.Image) -> bool:
    """Whether a picture has transparent parts, or may have."""
    return picture.mode in _ALPHA_MODES or "transparency" in picture.info


def _needed_package(source: Path | IO[bytes]) -> str | None:
    """What reads a HEIC or AVIF file, by its first bytes; None for all others."""
    if not isinstance(source, str | Path) or not Path(source).is_file():
        return None
    with open(source, "rb") as stream:
        box, brand = stream.read(8)[4:], stream.read(4)
    if box != b"ftyp":
        return None
    return "pillow>=11.3" if brand in _AVIF else "pillow-heif" if brand in _HEIC else None


def _registers_heif() -> bool:
    """Teach Pillow to read HEIC, if the package for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def read_reference(image: Path, read: Callable[[Path], np.ndarray] = read_rgb) -> np.ndarray:
    """The picture of a reference, uint8 RGB (h, w, 3). Raises UserError: it cannot be read."""
    try:
        return read(image)
    except UnreadablePicture as error:
        raise UserError(
            f"The reference {image} cannot be read ({error.kind}); replace it."
        ) from error


def _unreadable(source: Path | IO[bytes], error: Exception) -> UnreadablePicture:
    too_large = isinstance(error, Image.DecompressionBombError)
    kind = "too many pixels" if too_large else type(error).__name__
    name = source if isinstance(source, str | Path) else "in memory"
    return UnreadablePicture(
        f"The image {name} cannot be read ({kind}); replace or remove it.", kind
    )
