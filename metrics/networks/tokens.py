"""CLIP's tokenizer (open_clip) with a vocabulary small enough for the embedded text towers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

OTHER = 32
"""Rows shared by the tokens outside of the vocabulary, by their id modulo this number."""


@cache
def _bpe() -> SimpleTokenizer:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def clip_vocabulary(texts: Iterable[str]) -> list[int]:
    """The ids of CLIP's byte-pair encoding that occur in `texts`, ascending."""
    return sorted({token for text in texts for token in _bpe().encode(text)})


class FullTokenizer:
    """Texts to ids (n, context) of CLIP's full vocabulary: start, tokens, end (the largest id).

    Padded with zeros; longer texts are cut and end in the end of text, as CLIP and ViCLIP do it.

    Args:
        context: tokens read, start and end included (CLIP 77, ViCLIP 32).
    """

    def __init__(self, context: int) -> None:
        self.context = context

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        return _bpe()(list(texts), self.context)

    def share_read(self, text: str) -> float:
        """Share of the text's tokens that fit in the context, 0..1 (1 for an empty text)."""
        count = len(_bpe().encode(text))
        return min(1.0, (self.context - 2) / count) if count else 1.0


class ReducedTokenizer(FullTokenizer):
    """Texts to ids (n, context): start, tokens, end (the largest id), then zeros.

    CLIP's full embedding table (49,408 rows) would be several times as large as the rest of an
    embedded network. Ids: 0 padding, 1 start, then `OTHER` shared rows, then a row for each token
    of `vocabulary` (ids of CLIP's encoding), and the end of text last."""

    def __init__(self, vocabulary: Sequence[int], context: int = 32) -> None:
        super().__init__(context)
        self._row = {token: 2 + OTHER + i for i, token in enumerate(vocabulary)}
        self.size = 2 + OTHER + len(vocabulary) + 1

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            tokens = _bpe().encode(text)[: self.context - 2]
            known = [self._row.get(t, 2 + t % OTHER) for t in tokens]
            row[: len(known) + 2] = torch.tensor([1, *known, self.size - 1])
        return ids
