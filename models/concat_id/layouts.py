"""Names of tensors in two layouts, and the way between them, with nothing lost on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from idbench.errors import UserError

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """One tensor of a released layout and what it is in idbench's folders.

    Attributes:
        theirs: its name.
        ours: names of the tensors that it holds.
        split: from it to those, in order.
        join: back.
    """

    theirs: str
    ours: tuple[str, ...]
    split: Callable[[torch.Tensor], Sequence[torch.Tensor]]
    join: Callable[[Sequence[torch.Tensor]], torch.Tensor]


def same(theirs: str, ours: str) -> Rule:
    """The same tensor by another name."""
    return Rule(theirs, (ours,), lambda tensor: (tensor,), lambda parts: parts[0])


def same_pair(theirs: str, ours: str) -> list[Rule]:
    """Weight and bias of a layer."""
    return [same(f"{theirs}.{end}", f"{ours}.{end}") for end in ("weight", "bias")]


def to_ours(state: State, rules: Iterable[Rule], what: str) -> dict[str, torch.Tensor]:
    """`state` in our names.

    Raises:
        UserError: a tensor is missing, or one is not known; `what` names the source.
    """
    by_name = {rule.theirs: rule for rule in rules}
    check_names(state, by_name, what)
    made: dict[str, torch.Tensor] = {}
    for name, rule in by_name.items():
        made.update(zip(rule.ours, rule.split(state[name]), strict=True))
    return made


def to_theirs(state: State, rules: Iterable[Rule], what: str) -> dict[str, torch.Tensor]:
    """`state` in the released names; raises as `to_ours`."""
    rules = list(rules)
    check_names(state, {name for rule in rules for name in rule.ours}, what)
    return {rule.theirs: rule.join([state[name] for name in rule.ours]) for rule in rules}


def check_names(state: Iterable[str], wanted: Iterable[str], what: str) -> None:
    """Raise UserError unless both have the same names."""
    have, want = set(state), set(wanted)
    if have - want:
        raise UserError(
            f"{what} holds {listed(have - want)} that no Concat-ID network has: it is of another "
            "base or damaged; nothing was converted."
        )
    if want - have:
        raise UserError(
            f"{what} lacks {listed(want - have)}: it is cut short or of another base; fetch it "
            "again."
        )


def check_shapes(state: State, network: torch.nn.Module, what: str) -> None:
    """Raise UserError where a tensor has another shape than in `network` (may be on meta)."""
    wanted = network.state_dict()
    check_names(state, wanted, what)
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{what}: {name} has shape {tuple(tensor.shape)}, the network needs "
                f"{tuple(wanted[name].shape)}; it is of another base or damaged."
            )


def layer_count(names: Iterable[str], prefix: str) -> int:
    """1 + the largest number that follows `prefix` in `names`; 0 without any."""
    found = [
        int(number) for name in names
        if name.startswith(prefix) and (number := name[len(prefix) :].split(".")[0]).isdigit()
    ]
    return max(found, default=-1) + 1


def listed(names: Iterable[str], most: int = 4) -> str:
    """"3 tensors (a, b, c)", with only the first `most` names."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")
    return f"{len(ordered)} tensor{'s' if len(ordered) != 1 else ''} ({shown})"
