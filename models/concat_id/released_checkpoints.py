"""Released Concat-ID checkpoints to model folders in diffusers' layout, and back, losslessly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from idbench.checkpoints import (
    Checkpoint,
    check_fit,
    check_names,
    listed,
    read_checkpoint,
    read_settings,
)
from idbench.errors import UserError, explained
from idbench.files import atomic_folder, atomic_path, check_new_folder, sha256_file, write_json
from idbench.models.concat_id import convert_sat, convert_wan, networks
from idbench.models.concat_id.base_parts import add_base, read_folder, transformer_folder
from idbench.models.concat_id.checkpoint_layouts import CONCAT_ID, State
from idbench.models.concat_id.families import CogVideoX, Kind, Wan
from idbench.models.concat_id.families.wan21 import build_flow_scheduler
from idbench.models.concat_id.training import adapters

ASIDE = "unused.safetensors"
SAT_FILE = "mp_rank_00_model_states.pt"
WAN_FILES = ("first_stage.pt", "second_stage_adaln.pt")
LAYOUTS: dict[Kind, Any] = {CogVideoX: convert_sat, Wan: convert_wan}


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


def convert(source: Path, target: Path, to: str | None = None, base: Path | None = None) -> Report:
    """Convert a checkpoint; the target appears complete or not at all.

    Args:
        source: a released checkpoint (file or folder), or a model folder in diffusers' layout.
        target: the folder to make; for `sat` and `wan` it may be a file (*.pt).
        to: the target's layout; None: diffusers for a released checkpoint, else the release's.
        base: for diffusers, a folder of the base, whose autoencoder, text encoder and tokenizer
            complete the new one.

    Raises UserError: the source is damaged, of another base, or no plain state dict; the target
    exists.
    """
    check_new_folder(target)
    inner = transformer_folder(source)
    if inner is not None:
        return _to_released(source, inner, target, to, base)
    if (source / "model_index.json").is_file():
        raise UserError(f"{source} lacks transformer/config.json; download the folder again.")
    return _to_folder(read_released(source), target, to, base)


def read_released(source: Path) -> Checkpoint:
    """The tensors of a released checkpoint, a file or the folder of a release.
    Raises UserError: missing, several checkpoints, or as `checkpoints.read_checkpoint`."""
    return read_checkpoint(_find_file(source), mapped=True)


def _find_file(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{source} is missing; check the path.")
    latest = source / "latest"
    if latest.is_file():
        step = latest.read_text(encoding="utf-8", errors="replace").strip()
        found = source / step / SAT_FILE
        if not re.fullmatch(r"[\w.-]+", step) or not found.is_file():
            raise UserError(
                f"{latest} names the step {step[:40]!r}, but {SAT_FILE} is not there; fetch the "
                "checkpoint again."
            )
        return found
    files = [source / name for name in (SAT_FILE, *WAN_FILES) if (source / name).is_file()]
    if len(files) != 1:
        what = "more than one checkpoint" if files else "no checkpoint and no model folder"
        raise UserError(
            f"{source} holds {what}; pass the file itself ({SAT_FILE}, {', '.join(WAN_FILES)})."
        )
    return files[0]


def _to_folder(checkpoint: Checkpoint, target: Path, to: str | None, base: Path | None) -> Report:
    what, refused = str(checkpoint.path), dict(checkpoint.refused)
    family = _family_of(checkpoint)
    _check_layout(what, f"is in the layout {family.LAYOUT}, which", to, "diffusers")
    network, layout = checkpoint.state, LAYOUTS[family]
    aside: dict[str, torch.Tensor] = {}
    if family is CogVideoX:
        network, aside, others = convert_sat.sort(network, what)
        refused.update(others)
    config, state = layout.config_of(network, what), layout.from_released(network, what)
    transformer = _filled(family, config, state, what)
    report = Report(
        checkpoint.path.name, sha256_file(checkpoint.path), family.LAYOUT, "diffusers",
        _form(family, config), len(network),
        {name: convert_sat.UNUSED[name] for name in aside}, refused,
    )
    _check_space(target, state)
    with atomic_folder(target) as folder:
        index = dict(family.INDEX)
        if base is not None:
            index.update(add_base(base, folder, family, transformer.config))
        transformer.save_pretrained(folder / "transformer", max_shard_size="5GB")
        build = networks.build_scheduler if family is CogVideoX else build_flow_scheduler
        build().save_pretrained(folder / "scheduler")
        if aside:
            save_file({name: tensor.clone() for name, tensor in aside.items()}, folder / ASIDE)
        write_json(folder / "model_index.json", index)
        write_json(folder / "conversion.json", report.as_json())
    return report


def _to_released(
    source: Path, inner: Path, target: Path, to: str | None, base: Path | None
) -> Report:
    if base is not None:
        raise UserError("--base completes a diffusers folder; leave it out to convert back.")
    config, what = read_settings(inner / "config.json"), str(inner)
    family = _family_of_class(str(config.get("_class_name")), what)
    _check_layout(str(source), f"is a {config['_class_name']}, which", to, family.LAYOUT)
    state: State = read_folder(inner)
    network = _filled(family, config, state, what)
    _check_representable(config, family, what)
    place = inner.absolute()
    whole = place.parent if place.name == "transformer" else place
    count = len(state)
    if (whole / adapters.FILE).is_file():
        count += len(read_checkpoint(whole / adapters.FILE).state)
        adapters.merge(network, whole)
        state = network.state_dict()
    content = LAYOUTS[family].to_released(state, what)
    if family is CogVideoX:
        aside = _read_aside(whole / ASIDE)
        content |= aside
        count += len(aside)
    report = Report(source.name, None, "diffusers", family.LAYOUT, _form(family, config), count)
    _check_space(target, content)
    _write_released({"module": content} if family is CogVideoX else content, report, target)
    return report


def _write_released(content: Any, report: Report, target: Path) -> None:
    if target.suffix in (".pt", ".pth"):
        if target.is_dir():
            raise UserError(f"{target} is a folder; remove it or choose another target.")
        with atomic_path(target) as temporary:
            _save(content, temporary)
        return
    with atomic_folder(target) as folder:
        if report.form == "CogVideoX":
            (folder / "1").mkdir()
            _save(content, folder / "1" / SAT_FILE)
            (folder / "latest").write_text("1")
        else:
            _save(content, folder / WAN_FILES["AdaLN" in report.form])
        write_json(folder / "conversion.json", report.as_json())


def _read_aside(path: Path) -> dict[str, torch.Tensor]:
    """The tensors kept aside by `_to_folder`, by their released names."""
    if not path.is_file():
        return {}
    aside = read_checkpoint(path).state
    check_names(aside, aside.keys() & convert_sat.UNUSED.keys(), path, CONCAT_ID)
    return {convert_sat.PREFIX + name: tensor for name, tensor in aside.items()}


def _form(family: Kind, config: Mapping[str, Any]) -> str:
    if family is CogVideoX:
        return "CogVideoX"
    return "Wan AdaLN" if config.get("reference_adaln") else "Wan"


def _filled(family: Kind, config: Mapping[str, Any], state: State, what: str) -> Any:
    """The transformer of `config` with the tensors of `state`, each in its own dtype."""
    name = family.TRANSFORMER.__name__
    wrong = f"{what} does not have the settings of a {name}"
    with explained(wrong, "download it again, or use another base"), torch.device("meta"):
        network = family.TRANSFORMER.from_config(dict(config))
    check_weights(state, network, what)
    network.load_state_dict(
        {name: tensor.contiguous() for name, tensor in state.items()}, strict=True, assign=True
    )
    return network


def _save(content: Any, path: Path) -> None:
    # Through Python's own file, so that a full disk is an OSError with its errno.
    with open(path, "wb") as stream:
        torch.save(content, stream)


# Checks


def _family_of(checkpoint: Checkpoint) -> Kind:
    for family, layout in LAYOUTS.items():
        if layout.is_released(checkpoint.state):
            return family
    raise UserError(
        f"{checkpoint.path} is not a checkpoint of Concat-ID: it contains "
        f"{listed(checkpoint.state)}, "
        f"where SAT's names begin with {convert_sat.PREFIX} and Wan's with blocks.0.self_attn; "
        "use a released Concat-ID checkpoint."
    )


def _family_of_class(name: str, what: str) -> Kind:
    cogvideox, wan = (family.TRANSFORMER.__name__ for family in (CogVideoX, Wan))
    if name == cogvideox:
        return CogVideoX
    if name in (wan, "WanTransformer3DModel"):
        return Wan
    raise UserError(
        f"{what} is a {name}, which Concat-ID is not built on; use {cogvideox} or {wan}."
    )


def check_weights(state: State, network: torch.nn.Module, what: str) -> None:
    """Raise UserError unless these are the dense tensors of `network`, which may be on meta."""
    check_fit(state, network.state_dict(), what, CONCAT_ID)
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise UserError(
                f"{what}: {name} is not a dense floating-point tensor ({kind}); use the weights "
                "as they were released, not compressed."
            )


def _check_layout(source: str, kind: str, to: str | None, possible: str) -> None:
    if to not in (None, possible):
        raise UserError(
            f"{source} {kind} converts to {possible}, not to {to}; leave out --to, or use --to "
            f"{possible}."
        )


def _check_representable(config: Mapping[str, Any], family: Kind, what: str) -> None:
    """Raise UserError where the released code would compute something else than the folder."""
    for name, value in LAYOUTS[family].COMPUTED.items():
        if name == "reference_ffn_quirk" and not config.get("reference_adaln"):
            continue
        if config.get(name, value) != value:
            raise UserError(
                f"{what} has {name} {config[name]}, but the released code uses {value} and "
                "would generate other videos; keep this network in its folder."
            )


def _check_space(target: Path, state: State) -> None:
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    needed = sum(tensor.nbytes for tensor in state.values())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"The target needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on the "
            f"disk of {parent}; free some space or choose another target."
        )
