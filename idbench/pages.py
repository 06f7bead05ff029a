"""Self-contained HTML pages: templates that escape everything, inline scripts, images and SVG."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(str(files("idbench.reports"))) / "templates"
"""Pages of reports; base.html and base.css are of all pages: colours, type, tables."""


def template(path: Path, **filters: Callable[..., Any]) -> jinja2.Template:
    """A template, which extends base.html; it escapes its values and refuses unknown names."""
    environment = _environment(path)
    environment.filters.update(filters)
    return environment.get_template(path.name)


@cache
def _environment(path: Path) -> jinja2.Environment:
    """That of one template, which it keeps compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, TEMPLATES]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.globals["base_style"] = Markup((TEMPLATES / "base.css").read_text("utf-8"))
    return environment


def inline(name: str) -> dict[str, Markup]:
    """The script and the style sheet NAME.js and NAME.css, and the script's hash for a security
    policy."""
    text = (TEMPLATES / f"{name}.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {
        "script": Markup(text), "script_hash": Markup(digest),
        "style": Markup((TEMPLATES / f"{name}.css").read_text(encoding="utf-8")),
    }


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of a MIME type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element without a date. Set `svg.fonttype` and the like around it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg"):]
