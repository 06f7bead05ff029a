"""A part of a run for one of several processes: `--shard I/N`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from idbench.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Items `index`, `index + count`, `index + 2 count`, ... of a list."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str | None) -> Shard | None:
        """The shard of "I/N", I from 0 to N - 1; None of None. Raises UserError: anything else."""
        if text is None:
            return None
        index, _, count = text.partition("/")
        if all(part.isascii() and part.isdigit() and len(part) < 7 for part in (index, count)):
            shard = cls(int(index), int(count))
            if shard.index < shard.count:
                return shard
        raise UserError(
            f"--shard {text[:40]} must be I/N with I from 0 to N - 1, such as 0/4 for the first "
            "of four."
        )

    @property
    def name(self) -> str:
        """As in the names of its locks."""
        return f"shard-{self.index}-of-{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """The shard's items."""
        return list(items[self.index :: self.count])
