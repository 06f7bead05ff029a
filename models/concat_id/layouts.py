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
        try:
            made.update(zip(rule.ours, rule.split(state[name]), strict=True))
        except (RuntimeError, ValueError) as error:  # no rows to split, or too few
            raise UserError(
                f"{what}: {name} has shape {tuple(state[name].shape)}, which is not that of "
                f"{len(rule.ours)} tensors in one; it is of another base or damaged."
            ) from error
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
    """Raise UserError where a tensor is of another kind or shape than in `network`.

    The network may be on the meta device; floating-point numbers of any width are of its kind.
    """
    wanted = network.state_dict()
    check_names(state, wanted, what)
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{what}: {name} has shape {tuple(tensor.shape)}, the network needs "
                f"{tuple(wanted[name].shape)}; it is of another base or damaged."
            )
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise UserError(
                f"{what}: {name} is no dense tensor of floating-point numbers ({kind}); take the "
                "weights as they were released, not compressed."
            )


def layer_count(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow `prefix` in `names`, from 0 up to the first that does not."""
    found = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    return next(i for i in range(len(found) + 1) if str(i) not in found)


def listed(names: Iterable[str], most: int = 4) -> str:
    """"3 tensors (a, b, c)", with only the first `most` names."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")
    return f"{len(ordered)} tensor{'s' if len(ordered) != 1 else ''} ({shown})"
