"""Worker processes end with the process that started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from idbench.errors import UserError
from idbench.pools import pool

PROGRAM = """
import os
import time
from idbench.pools import pool
if __name__ == "__main__":
    with pool(1, os.putenv, "GIVEN", "yes") as workers:
        print(workers.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


INTERRUPTED = """
import signal
import time
from idbench.pools import pool
if __name__ == "__main__":
    with pool(1) as workers:
        jobs = [workers.submit(time.sleep, seconds) for seconds in (0, 600, 600)]
        jobs[0].result()
        time.sleep(0.2)  # the second begins
        signal.raise_signal(signal.SIGINT)
"""


def test_an_interrupt_does_not_wait_for_the_jobs_that_are_left(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in done.stderr and done.returncode


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


def test_a_worker_that_dies_is_one_sentence() -> None:
    with pytest.raises(UserError, match="A worker process died, .* fewer workers"):
        with pool(1) as workers:
            workers.submit(os._exit, 9).result()


def test_after_an_error_no_further_job_begins(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with pool(1) as workers:
            first = workers.submit(divmod, 1, 0)
            for k in range(20):
                workers.submit(os.mkdir, tmp_path / str(k))
                workers.submit(time.sleep, 0.2)
            first.result()
    assert len(list(tmp_path.iterdir())) <= 3
