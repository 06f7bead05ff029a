"""The page of a study: for the local server, or as one file for one voter."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from idbench.files import write_text
from idbench.reports.study import Study
from idbench.reports.votes import check_name

TEMPLATES = Path(__file__).parent / "templates"


def render(study: Study, **more: Any) -> str:
    """The page. It knows questions and codes, and nothing of systems, runs or file names."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    script = (TEMPLATES / "study.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    known = {"study": study.id, "questions": list(study.questions.items()), "ties": study.ties,
             "pairs": len(study.pairs), **more}
    return environment.get_template("study.html").render(
        script=Markup(script), script_hash=Markup(digest), known=known, ties=study.ties,
        style=Markup((TEMPLATES / "study.css").read_text(encoding="utf-8")),
        pairs=len(study.pairs), questions=len(study.questions),
    )


def trials(study: Study, voter: str) -> list[dict[str, Any]]:
    """The voter's trials as the page takes them."""
    return [asdict(t) for t in study.trials(voter)]


def write(study: Study, voter: str, output: Path) -> None:
    """One page for one voter: opens from disk, keeps its answers in the browser, offers a file.

    Raises:
        UserError: a name that cannot name a voter.
    """
    check_name(voter)
    media = {
        code: f"data:{kind};base64,"
        + base64.b64encode((study.folder / "media" / code).read_bytes()).decode("ascii")
        for code, kind in study.media.items()
    }
    write_text(output, render(study, voter=voter, trials=trials(study, voter), media=media))
