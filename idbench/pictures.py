"""Picture files as upright RGB: references and masks, and videos that are pictures.

A video may be a folder of numbered frames, or an animated WebP or AVIF file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence

from idbench.errors import UserError

BACKDROP = (255, 255, 255, 255)
"""Colour behind transparent parts: white, as in viewers and on web pages."""
_PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
"""Brands in the first box of a file."""

FPS = 8.0
"""Rate of frames that come without one."""

PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".avif", ".heic",
    ".heif",
)
ANIMATED_SUFFIXES = (".webp", ".png", ".apng", ".avif", ".avifs")
"""Endings of pictures that may be animated."""


class UnreadablePicture(UserError):
    """A picture file that is missing, damaged, or no picture; `kind` names the underlying error."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def why_unread(image: Path, error: OSError | UnreadablePicture) -> str:
    """The reason why what a reference shows has no value."""
    kind = error.kind if isinstance(error, UnreadablePicture) else type(error).__name__
    return f"the reference {image.name} cannot be read ({kind})"


def encoded(picture: Image.Image, form: str, **options: int) -> bytes:
    """A picture as the bytes of a file of Pillow's `form`, such as "WEBP", with its `options`."""
    stream = BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def open_rgb(source: Path | IO[bytes]) -> Image.Image:
    """A picture as 8-bit RGB at its full size, turned as its camera was held (EXIF).

    Transparent parts are laid over white, 16-bit grey keeps its high byte, of several pictures the
    first is read, and colour profiles are not applied. Raises UnreadablePicture: missing, damaged,
    not a picture, too large, with float pixels, or of a format that needs another package."""
    with _readable(source), open_picture(source) as opened:
        if opened.mode == "F":
            raise ValueError("floating-point pixels have no agreed white level")
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I"):
            # PIL's own conversion clips at 255, which makes nearly everything white.
            high = np.clip(np.asarray(upright, np.int64) >> 8, 0, 255).astype(np.uint8)
            return Image.fromarray(high).convert("RGB")
        return over_white(upright).convert("RGB")


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """The opened picture; only its header is read. Raises UnreadablePicture."""
    with _readable(source):
        try:
            return Image.open(source)
        except Exception as error:
            needed = _needed_package(source)
            if needed == "pillow-heif" and _registers_heif():
                return Image.open(source)
            if needed:
                raise UnreadablePicture(
                    f"The picture {source} needs the package {needed}; install it with `pip "
                    f"install {needed!r}`, or save the picture as PNG or JPEG.",
                    type(error).__name__,
                ) from error
            raise


@contextmanager
def _readable(source: Path | IO[bytes]) -> Iterator[None]:
    """Turn whatever PIL raises of damaged files, which it does not document, into
    UnreadablePicture."""
    try:
        yield
    except (MemoryError, UnreadablePicture):
        raise
    except Exception as error:
        too_large = isinstance(error, Image.DecompressionBombError)
        kind = "too many pixels" if too_large else type(error).__name__
        name = source if isinstance(source, str | Path) else "in memory"
        raise UnreadablePicture(
            f"The image {name} cannot be read ({kind}); replace or remove it.", kind
        ) from error


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
    with _readable(source), Image.open(source) as opened:
        return np.array(opened.convert("RGB"))


def is_plain(path: Path) -> bool:
    """Whether `open_rgb` returns the stored pixels unchanged; reads only the header. False for
    turned or transparent pictures and for more than 8 bits, which earlier versions read
    differently."""
    with _readable(path), open_picture(path) as opened:
        # A PNG's EXIF may come after its pixels: only the header is read.
        turned = "exif" in opened.info or "xmp" in opened.info or opened.format == "TIFF"
        if turned and opened.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return False
        return opened.mode in _PLAIN_MODES and not is_transparent(opened)


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


@dataclass(frozen=True)
class PictureSequence:
    """Frames that are pictures: `size` is (width, height) of the first, `frames` gives uint8 RGB
    (height, width, 3) each."""

    count: int
    fps: float
    size: tuple[int, int]
    frames: Callable[[], Iterator[np.ndarray]]


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, ordered by the number at the end of their names, which are otherwise
    equal; empty if the folder holds anything else. Hidden files are ignored."""
    numbered: list[tuple[int, Path]] = []
    names = set()
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        found = re.fullmatch(r"(.*?)([0-9]{1,18})", path.stem)
        if path.suffix.lower() not in PICTURE_SUFFIXES or not found or not path.is_file():
            return []
        numbered.append((int(found[2]), path))
        names.add((found[1], path.suffix))
    return [path for _, path in sorted(numbered)] if len(names) == 1 else []


def of_folder(folder: Path) -> PictureSequence:
    """The frames of a folder. Raises UserError: there are none, or the first is not a picture."""
    files = frame_files(folder)
    if not files:
        raise UserError(
            f"The folder {folder} is not a video; a folder of frames holds numbered pictures, "
            "such as frame_0001.png, and nothing else."
        )
    with open_picture(files[0]) as first:
        size = first.size
    return PictureSequence(len(files), FPS, size, lambda: _of_one_size(files, size))


def _of_one_size(files: list[Path], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pictures; one with another number of pixels (cameras may turn them) is not decoded."""
    for file in files:
        with open_picture(file) as opened:
            if opened.width * opened.height != size[0] * size[1]:
                raise UserError(
                    f"The video {file.parent} changes its picture size at {file.name}; convert it "
                    "to one size."
                )
        yield read_rgb(file)


def is_animation(path: Path) -> bool:
    """Whether a file is an animated WebP or AVIF; FFmpeg reads all others."""
    with open(path, "rb") as stream:
        head = stream.read(12)
    if head[4:12] != b"ftypavis" and (head[:4], head[8:]) != (b"RIFF", b"WEBP"):
        return False
    return is_animated(path)


def is_animated(path: Path) -> bool:
    """Whether a picture file holds several frames; looks at the header alone."""
    try:
        with Image.open(path) as opened:
            return bool(getattr(opened, "is_animated", False))
    except Exception:  # what a damaged file does to PIL's readers is not documented
        return False


def of_animation(path: Path) -> PictureSequence:
    """The frames of an animated picture; transparent parts lie over white."""
    shown = []
    with Image.open(path) as opened:
        size, count = opened.size, int(getattr(opened, "n_frames", 1))
        for frame in ImageSequence.Iterator(opened):
            frame.load()  # only then it is known
            shown.append(frame.info.get("duration") or 0)
    rate = 1000 * len(shown) / sum(shown) if sum(shown) else FPS
    return PictureSequence(count, rate, size, lambda: _frames(path))


def _frames(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as opened:
        for frame in ImageSequence.Iterator(opened):
            yield np.array(over_white(frame).convert("RGB"))
