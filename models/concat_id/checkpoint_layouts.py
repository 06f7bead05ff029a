"""Tensors of released checkpoints, by rules that translate their names without loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch

from idbench.checkpoints import check_names
from idbench.errors import UserError

State = Mapping[str, torch.Tensor]
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


def layer_count(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow `prefix` in `names`, from 0 up to the first that does not."""
    found = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    return next(i for i in range(len(found) + 1) if str(i) not in found)
