"""A headless Chromium by the WebDriver protocol (chromedriver), without further packages."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def chromium() -> str | None:
    """Path of Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for n in names if (found := shutil.which(n))), None)


def why_not() -> str | None:
    """Why no browser can be driven here, or None."""
    found = {"chromium": chromium(), "chromedriver": shutil.which("chromedriver")}
    missing = [name for name, path in found.items() if path is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Browser:
    """One open window."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def open(self, url: str) -> None:
        _call(f"{self._address}/url", {"url": url})
        self.wait("document.documentElement.dataset.ready === '1'")

    def js(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self.run(f"return ({expression});")

    def run(self, script: str) -> Any:
        return _call(f"{self._address}/execute/sync", {"script": script, "args": []})

    def wait(self, expression: str, seconds: float = 10.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}"
            time.sleep(0.05)

    def choose(self, name: str, value: str) -> None:
        """Set a field of the tools as a user would."""
        self.run(f"const f = document.querySelector('.tools').elements[{json.dumps(name)}];"
                 f"f.value = {json.dumps(value)};"
                 "f.dispatchEvent(new Event('input', {bubbles: true}));")

    def press(self, key: str) -> None:
        """A key, to whatever has the focus. Keys of the WebDriver standard for special ones."""
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        body = {"actions": [{"type": "key", "id": "k", "actions": keys}]}
        _call(f"{self._address}/actions", body)

    def console_errors(self) -> list[str]:
        rows = _call(f"{self._address}/se/log", {"type": "browser"})
        return [r["message"] for r in rows if r["level"] == "SEVERE"]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return _call(f"{self._address}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: Path) -> None:
        with urllib.request.urlopen(f"{self._address}/screenshot", timeout=30) as answer:
            path.write_bytes(base64.b64decode(json.load(answer)["value"]))


@contextmanager
def browse(profile: Path, size: tuple[int, int] = (1280, 1000)) -> Iterator[Browser]:
    """A window of `size`; its profile lies in the folder `profile`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--hide-scrollbars", f"--user-data-dir={profile}",
                 f"--window-size={size[0]},{size[1]}"]
        wanted = {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium(), "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"}}}
        end = time.monotonic() + 20
        while True:
            try:
                session = _call(f"{address}/session", {"capabilities": wanted})["sessionId"]
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        try:
            yield Browser(address, session)
        finally:
            urllib.request.urlopen(urllib.request.Request(
                f"{address}/session/{session}", method="DELETE"), timeout=30).close()
    finally:
        driver.terminate()
        driver.wait(10)


def _call(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"].get("message", "")[:2000]) from error
