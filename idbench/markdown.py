"""Text inside Markdown."""

from __future__ import annotations

import html
import re

from idbench.output import visible

_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""The start of a tag, and of a character's name."""
_MARKS = re.compile(r"[\\|*]")


def escape(text: str) -> str:
    """`text` on one line, with what Markdown would read as HTML, as a column or as bold escaped,
    and with control characters made visible.

    All else stays as it is, for those who read the file itself: `p < 0.001`, `I > III`, `R&D`.
    """
    one_line = visible(" ".join(text.split()))
    return _MARKS.sub(r"\\\g<0>", _HTML.sub(lambda found: html.escape(found[0]), one_line))
