"""The page of a study: as one file for one voter, or shown by a server on the loopback interface
alone, which keeps the votes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from idbench import pages
from idbench.errors import UserError
from idbench.files import check_output, write_text
from idbench.output import echo
from idbench.reports.study_files import BadName, Refused, Study, Votes, check_name

HOST = "127.0.0.1"
LARGEST_BODY = 4096
"""Bytes of a request: an answer is far smaller."""


def render(study: Study, **more: Any) -> str:
    """The page. It knows questions and codes, and nothing of systems, runs or file names."""
    known = {"study": study.id, "questions": list(study.questions.items()), "ties": study.ties,
             "pairs": len(study.pairs), **more}
    return pages.template(pages.TEMPLATES / "study.html").render(
        **pages.inline("study"), known=known, ties=study.ties, pairs=len(study.pairs),
        questions=len(study.questions),
    )


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
    write_text(output, render(study, voter=voter, trials=_trials(study, voter), media=media))


def _trials(study: Study, voter: str) -> list[dict[str, Any]]:
    """The voter's trials as the page takes them."""
    return [asdict(trial) for trial in study.trials(voter)]


class StudyServer(ThreadingHTTPServer):
    """Serves one study until `shutdown`; port 0 takes any free one. Raises UserError: the port is
    taken."""

    daemon_threads = True

    def __init__(self, study: Study, port: int = 0) -> None:
        self.study = study
        self.page = render(study).encode("utf-8")
        self._votes: dict[str, Votes] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"Port {port} is taken ({error.strerror}); choose another with --port."
            ) from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def state(self, voter: str) -> dict[str, Any]:
        """What the page needs to begin or go on."""
        with self._lock:
            votes = self._of(voter)
            return {"trials": _trials(self.study, voter), "answers": votes.answers}

    def put(self, body: bytes) -> dict[str, Any]:
        """Keep the one answer that a page sent; it is on disk when this returns."""
        try:
            entry = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused("no answer") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("voter"), str):
            raise Refused("no answer")
        with self._lock:
            self._of(entry["voter"]).put(entry)
        return {"kept": True}

    def _of(self, voter: str) -> Votes:
        if voter not in self._votes:
            self._votes[voter] = Votes.of(self.study, voter)
        return self._votes[voter]


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    server_version, sys_version = "idbench", ""

    def do_GET(self) -> None:
        if not self._ours():
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(200, "text/html; charset=utf-8", self.server.page)
        elif url.path == "/state":
            voter = parse_qs(url.query).get("voter", [""])[0]
            self._answer(lambda: self.server.state(voter))
        else:
            study, code = self.server.study, url.path.removeprefix("/media/")
            path = study.folder / "media" / code
            if code == url.path or code not in study.media or not path.is_file():
                self._json(404, {"problem": "unknown"})
            else:
                self._send(200, study.media[code], path.read_bytes())

    def do_POST(self) -> None:
        if not self._ours():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            self._json(413, {"problem": "too long"})
            return
        body = self.rfile.read(int(length))
        # A form of another site can send no JSON, so no other page can vote.
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if urlsplit(self.path).path != "/vote" or kind != "application/json":
            self._json(404, {"problem": "unknown"})
        else:
            self._answer(lambda: self.server.put(body))

    def _ours(self) -> bool:
        """Whether the request names this server: a foreign name that leads here is refused."""
        host = self.headers.get("Host", "")
        port = self.server.server_port
        if host in (f"{HOST}:{port}", f"localhost:{port}"):
            return True
        self.close_connection = True
        self._json(403, {"problem": "unknown host"})
        return False

    def _answer(self, make: Callable[[], dict[str, Any]]) -> None:
        """Send what `make` returns, or why it could not be made."""
        try:
            self._json(200, make())
        except (BadName, Refused) as error:
            self._json(400, {"problem": str(error)})
        except (UserError, OSError) as error:
            # The details name folders: they are for whoever runs the study, not for the voter.
            echo(f"Error: {error}", err=True)
            self._json(500, {
                "problem": "it could not be saved; contact the person running the study"})

    def _json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode("utf-8"))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: who votes when is in the votes."""
