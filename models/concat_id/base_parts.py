"""What a transformer needs beside it to make videos: autoencoder, text encoder, tokenizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.models.concat_id.checkpoints import read_settings

PARTS = ("tokenizer", "text_encoder", "vae")
_INDEX: dict[str, dict[str, Any]] = {
    "sat": {
        "_class_name": "ConcatIDPipeline",
        "scheduler": ["diffusers", "CogVideoXDPMScheduler"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
        # CogVideoX reads all 226 tokens, those behind the prompt's end too.
        "text_tokens": 226, "mask_padding": False,
    },
    "wan": {
        "_class_name": "ConcatIDWanPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["idbench.models.concat_id.wan", "ConcatIDWanTransformer3DModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_tokens": 512,
    },
}


def index_of(layout: str) -> dict[str, Any]:
    """model_index.json of a folder converted from `layout` (`sat` or `wan`)."""
    from diffusers import __version__

    return {"_diffusers_version": __version__, **_INDEX[layout]}


def add_base(
    base: Path, folder: Path, layout: str, transformer: Mapping[str, Any]
) -> dict[str, Any]:
    """Bring autoencoder, text encoder and tokenizer of `base` into `folder`.

    Files are linked where the disk allows it (they are many gigabytes), else copied.

    Args:
        base: a folder of the base in diffusers' layout.
        transformer: the configuration that the parts have to fit.

    Returns:
        The parts' entries of `base`'s model_index.json.

    Raises:
        UserError: parts are missing, or are of another base.
    """
    index = read_settings(base / "model_index.json")
    missing = lacking(base, index, PARTS)
    if missing:
        raise UserError(
            f"{base} lacks {', '.join(missing)}; name a complete folder of the base with --base."
        )
    wanted = _INDEX[layout]["vae"][1]
    if index["vae"][1] != wanted:
        raise UserError(
            f"{base} is of another base: its autoencoder is {index['vae'][1]}, the checkpoint "
            f"needs {wanted}; name the matching base with --base."
        )
    vae, text = (read_settings(base / part / "config.json") for part in ("vae", "text_encoder"))
    channels = vae.get("z_dim", vae.get("latent_channels"))
    width = transformer["text_dim" if layout == "wan" else "text_embed_dim"]
    if channels != transformer["in_channels"] or text.get("d_model") != width:
        raise UserError(
            f"{base} does not fit the checkpoint: {channels} latent channels and text of "
            f"{text.get('d_model')} numbers, where {transformer['in_channels']} and {width} are "
            "needed; name the matching base with --base."
        )
    for name in PARTS:
        for path in (base / name).rglob("*"):
            if not path.exists():  # a link into a cache that was emptied
                raise UserError(f"{path} leads to no file; fetch the base again.")
    for name in PARTS:
        shutil.copytree(base / name, folder / name, copy_function=_link_or_copy)
    return {name: index[name] for name in PARTS}


def lacking(folder: Path, index: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Those of `parts` that have no folder, or no library and class in model_index.json."""
    return [
        part for part in parts
        if not (folder / part).is_dir() or not is_part(index.get(part))
    ]


def is_part(entry: Any) -> bool:
    """Whether an entry of model_index.json is that of a part: its library and its class."""
    return (
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)
    )


def _link_or_copy(source: str, target: str) -> None:
    try:
        # A hub's cache holds links; what is linked here has to be the file itself.
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
