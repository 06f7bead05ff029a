"""Worker processes end with the process that started them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

PROGRAM = """
import os
import time
from idbench.pools import pool
if __name__ == "__main__":
    with pool(1, os.putenv, "GIVEN", "yes") as workers:
        print(workers.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_workers_of_a_killed_process_end(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    worker = int(process.stdout.readline())
    assert not ended(worker)
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 60
    while not ended(worker):
        assert time.monotonic() < end
        time.sleep(0.05)
