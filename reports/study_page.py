"""The page of a study: for the local server, or as one file for one voter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from idbench import pages
from idbench.files import check_output, write_text
from idbench.reports.study_record import Study
from idbench.reports.votes import check_name

TEMPLATES = Path(__file__).parent / "templates"


def render(study: Study, **more: Any) -> str:
    """The page. It knows questions and codes, and nothing of systems, runs or file names."""
    known = {"study": study.id, "questions": list(study.questions.items()), "ties": study.ties,
             "pairs": len(study.pairs), **more}
    return pages.template(TEMPLATES / "study.html").render(
        **pages.inline(TEMPLATES / "study.js", TEMPLATES / "study.css"), known=known,
        ties=study.ties, pairs=len(study.pairs), questions=len(study.questions),
    )


def trials(study: Study, voter: str) -> list[dict[str, Any]]:
    """The voter's trials as the page takes them."""
    return [asdict(t) for t in study.trials(voter)]


def write(study: Study, voter: str, output: Path) -> None:
    """One page for one voter: opens from disk, keeps its answers in the browser, offers a file.
    Raises UserError: a name that cannot name a voter, or `output` is a file that is no such
    page."""
    check_name(voter)
    check_output(output, "study page")
    media = {
        code: pages.data_uri(kind, (study.folder / "media" / code).read_bytes())
        for code, kind in study.media.items()
    }
    write_text(output, render(study, voter=voter, trials=trials(study, voter), media=media))
