"""Released Concat-ID checkpoints to idbench's folders, and back, without losing a tensor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from idbench.errors import UserError
from idbench.files import atomic_path, saying_disk_full, sha256_file, write_json
from idbench.models.concat_id import convert_sat, convert_wan, networks
from idbench.models.concat_id.base_parts import add_base, index_of
from idbench.models.concat_id.checkpoints import (
    SAT_FILE,
    WAN_FILES,
    Checkpoint,
    read_checkpoint,
    read_folder,
    read_settings,
)
from idbench.models.concat_id.layouts import State, check_names, check_shapes, listed
from idbench.models.concat_id.training import adapters
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

LAYOUTS = ("sat", "diffusers", "wan")
ASIDE = "unused.safetensors"
WAN_SHIFT = 5.0
_COG, _WAN = "CogVideoXTransformer3DModel", "ConcatIDWanTransformer3DModel"


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        source: name of the file or folder; sha256: of the file (None for a folder).
        from_, to: layouts. form: `CogVideoX`, `Wan` or `Wan AdaLN`.
        mapped: tensors of the source that are in the target.
        aside: tensors that no network reads, kept in `unused.safetensors`, and why.
        refused: everything else of the source, by name, and why it is not in the target.
    """

    source: str
    sha256: str | None
    from_: str
    to: str
    form: str
    mapped: int
    aside: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["from"] = values.pop("from_")
        return {"version": 1, **values}


def convert(
    source: Path, target: Path, to: str | None = None, base: Path | None = None
) -> Report:
    """Convert a checkpoint; the target appears complete or not at all.

    Args:
        source: a released checkpoint (file or folder), or a model folder in diffusers' layout.
        target: the folder to make; towards `sat` and `wan` also a file (*.pt).
        to: the target's layout; None: diffusers for a released checkpoint, else the release's.
        base: towards diffusers, a folder of the base in diffusers' layout, whose autoencoder,
            text encoder and tokenizer complete the new one.

    Raises:
        UserError: source damaged, of another base, no plain state dict; target there already.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already; remove it or name another target.")
    inner = _transformer_folder(source)
    if inner is not None:
        return _to_released(source, inner, target, to, base)
    checkpoint = read_checkpoint(source)
    layout = _layout_of(checkpoint)
    if (to or "diffusers") != "diffusers":
        raise UserError(
            f"{checkpoint.path} is in the layout {layout}, which converts to diffusers, not to "
            f"{to}; leave out --to."
        )
    return _to_folder(checkpoint, layout, target, base)


def _layout_of(checkpoint: Checkpoint) -> str:
    if convert_sat.is_released(checkpoint.state):
        return "sat"
    if convert_wan.is_released(checkpoint.state):
        return "wan"
    raise UserError(
        f"{checkpoint.path} is no checkpoint of Concat-ID: it holds {listed(checkpoint.state)}, "
        f"where SAT's names begin with {convert_sat.PREFIX} and Wan's with blocks.0.self_attn; "
        "take a released Concat-ID checkpoint."
    )


def _to_folder(
    checkpoint: Checkpoint, layout: str, target: Path, base: Path | None
) -> Report:
    what, refused = str(checkpoint.path), dict(checkpoint.refused)
    aside: dict[str, torch.Tensor] = {}
    network = checkpoint.state
    if layout == "sat":
        network, aside, more = convert_sat.sort(network, what)
        refused.update(more)
        config = convert_sat.config_of(network, what)
        state, form = convert_sat.from_released(network, what), "CogVideoX"
        scheduler: Any = networks.build_scheduler()
    else:
        config = convert_wan.config_of(network, what)
        state = convert_wan.from_released(network, what)
        form = "Wan AdaLN" if config["reference_adaln"] else "Wan"
        scheduler = FlowMatchEulerDiscreteScheduler(shift=WAN_SHIFT)
    transformer = filled(_COG if layout == "sat" else _WAN, config, state, what)
    report = Report(
        checkpoint.path.name, sha256_file(checkpoint.path), layout, "diffusers", form,
        len(network), {name: convert_sat.UNUSED[name] for name in aside}, refused,
    )
    _check_space(target, state)
    with atomic_folder(target) as folder:
        index = index_of(layout)
        if base is not None:
            index.update(add_base(base, folder, layout, transformer.config))
        transformer.save_pretrained(folder / "transformer", max_shard_size="5GB")
        scheduler.save_pretrained(folder / "scheduler")
        if aside:
            save_file({name: tensor.clone() for name, tensor in aside.items()}, folder / ASIDE)
        write_json(folder / "model_index.json", index)
        write_json(folder / "conversion.json", report.as_json())
    return report


def _to_released(
    source: Path, inner: Path, target: Path, to: str | None, base: Path | None
) -> Report:
    if base is not None:
        raise UserError("--base completes a diffusers folder; leave it out on the way back.")
    config = read_settings(inner / "config.json")
    name = str(config.get("_class_name"))
    layout = {_COG: "sat", _WAN: "wan", "WanTransformer3DModel": "wan"}.get(name)
    if layout is None:
        raise UserError(
            f"{inner} is a {name}, on which Concat-ID is not built; take {_COG} or {_WAN}."
        )
    if (to or layout) != layout:
        raise UserError(
            f"{source} is a {name}, whose released layout is {layout}, not {to}; write --to "
            f"{layout}."
        )
    what, aside, merged = str(inner), {}, 0
    state: State = read_folder(inner).state
    network = filled(_COG if layout == "sat" else _WAN, config, state, what)
    _check_representable(config, layout, what)
    place = inner.absolute()
    whole = place.parent if place.name == "transformer" else place
    if (whole / adapters.FILE).is_file():
        merged = len(read_checkpoint(whole / adapters.FILE).state)
        adapters.merge(network, whole)
        state = network.state_dict()
    if layout == "sat":
        released, form = convert_sat.to_released(state, what), "CogVideoX"
        kept = whole / ASIDE
        if kept.is_file():
            aside = read_checkpoint(kept).state
            check_names(aside, aside.keys() & convert_sat.UNUSED.keys(), str(kept))
            released.update({convert_sat.PREFIX + n: t for n, t in aside.items()})
        content: Any = {"module": released}
    else:
        released = convert_wan.to_released(state, what)
        form = "Wan AdaLN" if config.get("reference_adaln") else "Wan"
        content = released
    report = Report(source.name, None, "diffusers", layout, form, len(state) + len(aside) + merged)
    _check_space(target, released)
    if target.suffix in (".pt", ".pth"):
        if target.is_dir():
            raise UserError(f"{target} is a folder; remove it or name another target.")
        with atomic_path(target) as temporary:
            _save(content, temporary)
        return report
    with atomic_folder(target) as folder:
        if layout == "sat":
            (folder / "1").mkdir()
            _save(content, folder / "1" / SAT_FILE)
            (folder / "latest").write_text("1")
        else:
            _save(content, folder / WAN_FILES["AdaLN" in form])
        write_json(folder / "conversion.json", report.as_json())
    return report


def filled(class_name: str, config: Mapping[str, Any], state: State, what: str) -> Any:
    """The transformer of `config` with the tensors of `state` in it, each in its own dtype.

    Raises:
        UserError: settings of no such network; names or shapes that are not the network's.
    """
    made = CogVideoXTransformer3DModel if class_name == _COG else ConcatIDWanTransformer3DModel
    try:
        with torch.device("meta"):
            network = made.from_config(dict(config))
    except Exception as error:  # what wrong settings do in diffusers is not documented
        raise UserError(
            f"{what} has settings of no {class_name} ({' '.join(str(error).split())[:120]}); fetch "
            "it again, or take another base."
        ) from error
    check_shapes(state, network, what)
    network.load_state_dict(
        {name: tensor.contiguous() for name, tensor in state.items()}, strict=True, assign=True
    )
    return network


def _check_representable(config: Mapping[str, Any], layout: str, what: str) -> None:
    """Raise UserError where the released code would compute something else than the folder."""
    wanted: dict[str, Any] = {}
    if layout == "sat":
        wanted = {
            "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": False,
            "patch_size_t": None, "ofs_embed_dim": None, "patch_size": 2, "norm_eps": 1e-5,
            "activation_fn": "gelu-approximate", "timestep_activation_fn": "silu",
            "flip_sin_to_cos": True, "freq_shift": 0,
        }
    else:
        wanted = {
            "attention_head_dim": convert_wan.HEAD_DIM, "eps": 1e-6,
            "qk_norm": "rms_norm_across_heads",
        }
        if config.get("reference_adaln"):
            wanted["reference_ffn_quirk"] = True
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise UserError(
                f"{what} has {name} {config[name]}, and the released code computes with {value}: "
                "it would give other videos; keep this network in its folder."
            )


def _transformer_folder(source: Path) -> Path | None:
    """The transformer's folder if `source` is in diffusers' layout."""
    for folder in (source / "transformer", source):
        if (folder / "config.json").is_file():
            return folder
    if (source / "model_index.json").is_file():
        raise UserError(f"{source} lacks transformer/config.json; fetch the folder again.")
    return None


def _save(content: Any, path: Path) -> None:
    # Through Python's own file, so that a full disk is an OSError with its number.
    with open(path, "wb") as stream:
        torch.save(content, stream)


def _check_space(target: Path, state: State) -> None:
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, no folder; name another target.")
    needed = sum(tensor.nbytes for tensor in state.values())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"The target needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on the "
            f"disk of {parent}; free some space or name another target."
        )


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, renamed to it when the block succeeds, else removed."""
    with saying_disk_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(".part", f".{target.name}.", target.parent))
        try:
            yield folder
            folder.chmod(0o755)
            folder.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
