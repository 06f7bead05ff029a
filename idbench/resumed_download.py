"""One file from a plain address: continued after a cut, tried again, checked by sha256."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from idbench.errors import UserError
from idbench.progress import transfer

CONNECT_SECONDS, STALL_SECONDS = 10.0, 30.0
"""Without an answer, or without a byte, for so long, a download is tried again."""
TRIES = 5
"""Tries in a row that bring nothing, before a download is given up."""
CHUNK = 1 << 16
AGAIN = "check the network and the disk, and run the same command again: it continues"
UNREACHABLE = "cannot be reached"


def retrieve(url: str, sha256: str | None, target: Path) -> None:
    """A file at a plain address, resumed and checked. Raises UserError: it cannot be downloaded, or
    has another sha256."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        pooch.retrieve(
            url, f"sha256:{sha256}" if sha256 else None, target.name, target.parent,
            downloader=lambda url, output, _: _resume(url, part, Path(output)),
        )
    except ValueError as error:
        if "hash" not in str(error):
            raise
        raise UserError(
            f"{url} does not have the published sha256: it is damaged or another file; get it "
            "from another source."
        ) from error


def _resume(url: str, part: Path, output: Path) -> None:
    """Download to `part`, continued where an earlier try stopped, then move it to `output`."""
    import requests

    trouble, failures = "", 0
    while failures < TRIES:
        before = _size(part)
        try:
            _continue(url, part)
            os.replace(part, output)
            return
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status < 500:
                raise UserError(f"{url} answers {status}; check the address.") from error
            trouble = f"the server answers {status}"
        except (requests.ConnectionError, requests.Timeout) as error:
            trouble = _trouble(error)
        except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema,
                requests.exceptions.InvalidURL) as error:
            raise UserError(
                f"{url} is not an address, which begins with https://; correct it.") from error
        except requests.RequestException as error:
            trouble = type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
    done = _size(part)
    if trouble == UNREACHABLE and not done:
        raise UserError(
            f"{url} {trouble}; check the network, or bring the files from another machine "
            "(--from FOLDER)."
        )
    raise UserError(
        f"The download of {url} stopped after {done / 1e6:.1f} MB ({trouble}); {AGAIN}.")


def _trouble(error: Exception) -> str:
    """What stopped a download, in words."""
    import requests

    text = str(error)
    never = ("Failed to resolve", "Failed to establish", "NewConnectionError", "Name or service")
    if isinstance(error, requests.ConnectTimeout) or any(word in text for word in never):
        return UNREACHABLE
    return f"no byte for {STALL_SECONDS:.0f} s" if "timed out" in text else "cut"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _continue(url: str, part: Path) -> None:
    import requests

    done = _size(part)
    asked = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(
        url, stream=True, headers={"Accept-Encoding": "identity", **asked},
        timeout=(CONNECT_SECONDS, STALL_SECONDS),
    ) as answer:
        if answer.status_code == 416:  # nothing is left, or the file is another one now
            complete = answer.headers.get("Content-Range") == f"bytes */{done}"
            if complete:
                return
            part.unlink()
            raise requests.ConnectionError("the file has changed")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        left = int(answer.headers.get("Content-Length") or 0)
        total = left + done if resumed else left
        name = part.name.removesuffix(".part")
        with open(part, "ab" if resumed else "wb") as stream, transfer(name, total) as advance:
            advance(count=done if resumed else 0)
            for chunk in answer.iter_content(CHUNK):
                stream.write(chunk)
                advance(count=len(chunk))
