"""The pytest plugin: assert on a run in a test.

    def test_identity_is_kept(idbench_run):
        run = idbench_run("runs/mine")
        assert run.mean("arcsim") > 0.45
        run.assert_holds("references/mine.json")

Installed with idbench by the entry-point group `pytest11`; imports nothing heavy until used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from idbench.names import one_of

if TYPE_CHECKING:
    from idbench.gate import Verdict
    from idbench.measurements import Measurement
    from idbench.statistics import Estimate


class CheckedRun:
    """A run (or reference file) in a test."""

    def __init__(self, path: Path) -> None:
        from idbench import measured_files

        self.measured: Measurement = measured_files.read(path)

    def estimate(self, metric: str) -> Estimate:
        """Mean, 95% interval and coverage of a metric over all samples. Raises UserError: the run
        has no such metric."""
        one_of("metric of the run", metric, self.measured.metrics)
        return self.measured.estimate(metric)

    def mean(self, metric: str) -> float:
        """Mean over the scored samples. Raises AssertionError if there are none."""
        found = self.estimate(metric)
        if found.mean is None:
            raise AssertionError(f"no sample of {self.measured.source} has a value of {metric}")
        return found.mean

    def coverage(self, metric: str) -> float:
        """Share of the finished samples that have a value, 0..1."""
        return self.estimate(metric).coverage or 0.0

    def check(self, reference: str | Path, **settings: Any) -> Verdict:
        """The gate's verdict against a run folder or reference file; see `idbench.gate.check`."""
        from idbench import gate, measured_files

        return gate.check(self.measured, measured_files.read(Path(reference)), **settings)

    def assert_holds(
        self, reference: str | Path, *, tolerance: float = 0.01, allow: Collection[str] = (),
        **settings: Any,
    ) -> None:
        """Fail the test, with the gate's summary, unless the run holds against `reference`."""
        from idbench import gate_output

        verdict = self.check(reference, tolerance=tolerance, allow=allow, **settings)
        if verdict.code:
            raise AssertionError(gate_output.summary(verdict))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--idbench-run FOLDER`: the run that `idbench_run()` without a path opens."""
    parser.getgroup("idbench").addoption(
        "--idbench-run", metavar="FOLDER", help="Run folder that the fixture idbench_run opens."
    )


@pytest.fixture(scope="session")
def idbench_run(request: pytest.FixtureRequest) -> Callable[..., CheckedRun]:
    """Opens a run folder (or reference file); without a path, that of `--idbench-run`."""
    opened: dict[Path, CheckedRun] = {}

    def open_run(path: str | Path | None = None) -> CheckedRun:
        chosen = path or request.config.getoption("--idbench-run")
        if not chosen:
            raise pytest.UsageError("Pass a run: idbench_run(FOLDER), or pytest --idbench-run.")
        full = (request.config.invocation_params.dir / chosen).resolve()
        if full not in opened:
            opened[full] = CheckedRun(full)
        return opened[full]

    return open_run
