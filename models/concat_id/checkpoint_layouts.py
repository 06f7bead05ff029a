"""Released checkpoints: their files, and their tensors' names translated without loss."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch

from idbench.checkpoints import Checkpoint, check_fit, check_names, read_checkpoint
from idbench.errors import UserError

State = Mapping[str, torch.Tensor]
SAT_FILE = "mp_rank_00_model_states.pt"
WAN_FILES = ("first_stage.pt", "second_stage_adaln.pt")
CONCAT_ID = "a Concat-ID transformer"


@dataclass(frozen=True)
class Rule:
    """One tensor of a released layout, `theirs`, the tensors that it holds in idbench's folders,
    and how to `split` it into those and `join` them (default: one tensor, unchanged)."""

    theirs: str
    ours: tuple[str, ...]
    split: Callable[[torch.Tensor], Sequence[torch.Tensor]] = lambda tensor: (tensor,)
    join: Callable[[Sequence[torch.Tensor]], torch.Tensor] = itemgetter(0)


def pairs(layers: Mapping[str, str]) -> list[Rule]:
    """Weight and bias of each of `layers`: name in the release -> name here."""
    return [
        Rule(f"{theirs}.{end}", (f"{ours}.{end}",))
        for theirs, ours in layers.items() for end in ("weight", "bias")
    ]


def to_ours(state: State, rules: Iterable[Rule], what: str) -> dict[str, torch.Tensor]:
    """`state` in our names; `what` names the source in messages. Raises UserError: a tensor is
    missing or unknown, or cannot be split."""
    by_name = {rule.theirs: rule for rule in rules}
    check_names(state, by_name, what, CONCAT_ID)
    made: dict[str, torch.Tensor] = {}
    for name, rule in by_name.items():
        try:
            made.update(zip(rule.ours, rule.split(state[name]), strict=True))
        except (RuntimeError, ValueError) as error:  # no rows to split, or too few
            raise UserError(
                f"{what}: {name} has shape {tuple(state[name].shape)}, which does not split into "
                f"{len(rule.ours)} tensors; it belongs to another base or is damaged."
            ) from error
    return made


def to_theirs(state: State, rules: Iterable[Rule], what: str) -> dict[str, torch.Tensor]:
    """`state` in the released names; raises as `to_ours`."""
    rules = list(rules)
    check_names(state, {name for rule in rules for name in rule.ours}, what, CONCAT_ID)
    return {rule.theirs: rule.join([state[name] for name in rule.ours]) for rule in rules}


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


def layer_count(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow `prefix` in `names`, from 0 up to the first that does not."""
    found = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    return next(i for i in range(len(found) + 1) if str(i) not in found)
