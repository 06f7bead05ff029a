"""A local HTTP server for downloads that can stall, cut, redirect and send a wrong byte.

Files are under /NAME/FILE; the same under /OWNER/REPO/resolve/REVISION/FILE as the Hugging Face hub
serves them.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What goes wrong, a number of times each.

    Attributes:
        cut: the connection ends after half of what is left.
        stall: half of what is left is sent, then nothing for `seconds`.
        redirect: the answer is another address.
        wrong: one byte is another.
        error: the answer is 503.
    """

    cut: int = 0
    stall: int = 0
    redirect: int = 0
    wrong: int = 0
    error: int = 0
    seconds: float = 1.0

    def take(self, name: str) -> bool:
        left = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


@dataclass
class Server:
    """`files`: path -> bytes. `asked`: (path, Range) of each GET."""

    address: str
    files: dict[str, bytes]
    faults: Faults = field(default_factory=Faults)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


def stand_for_the_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub ask the server at `address`, and keep files in `cache`."""
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(
        "huggingface_hub._snapshot_download.HfApi",
        lambda *args, **given: HfApi(*args, **{**given, "endpoint": address}))


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    """A server of `files` on a free port."""
    found = Server("", files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers.get("Range")))
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            if re.match("/api/(datasets|models|spaces)/", self.path):
                return self._repository()
            path = self.path.replace("/elsewhere", "")
            path = re.sub(r"^(?:/datasets|/spaces)?(/[^/]+/[^/]+)/resolve/[^/]+/", r"\1/", path)
            data = found.files.get(path.lstrip("/"))
            if data is None:
                return self._head(404, 0)
            if body and found.faults.take("error"):
                return self._head(503, 0)
            if body and found.faults.take("redirect"):
                return self._head(302, 0, Location=f"/elsewhere{self.path}")
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            left = data[start:]
            asked = re.search("/resolve/([0-9a-f]{40})/", self.path)
            extra = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes",
                     "X-Repo-Commit": asked[1] if asked else COMMIT}
            if start:
                extra["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._head(206 if start else 200, len(left), **extra)
            if body:
                self._body(left)

        def _repository(self) -> None:
            """What the hub says of a repository: its commit and its files."""
            name = "/".join(self.path.split("/")[3:5])
            files = {path.removeprefix(f"{name}/"): data for path, data in found.files.items()
                     if path.startswith(f"{name}/")}
            if "/tree/" in self.path:
                said: object = [{"type": "file", "path": path, "size": len(data),
                                 "oid": hashlib.sha1(data).hexdigest()}
                                for path, data in files.items()]
            else:
                said = {"id": name, "sha": COMMIT,
                        "siblings": [{"rfilename": path} for path in files]}
            data = json.dumps(said).encode()
            self._head(200, len(data), **{"Content-Type": "application/json"})
            self.wfile.write(data)

        def _head(self, status: int, length: int, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _body(self, left: bytes) -> None:
            half = len(left) // 2
            if found.faults.take("wrong"):
                left = left[:half] + bytes([left[half] ^ 1]) + left[half + 1:]
            for fault in ("cut", "stall"):
                if found.faults.take(fault):
                    self.wfile.write(left[:half])
                    self.wfile.flush()
                    time.sleep(found.faults.seconds if fault == "stall" else 0)
                    self.close_connection = True
                    return
            self.wfile.write(left)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
