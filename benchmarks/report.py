"""How a report of many samples builds, opens, filters and sorts, in a headless Chromium.

    python benchmarks/report.py [SAMPLES]

Makes a run folder of SAMPLES (1,000) samples of two people, of which a few share each video, with
scores, faces and curves as a real run has them; builds its report, and prints seconds and the size
of the page. Needs chromium and chromedriver.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]
if TYPE_CHECKING:
    from tests.reports.browser import Browser

DISTINCT = 20
SHOWN = "document.querySelector('output[name=count]').textContent"
NODES = "document.querySelectorAll('*').length"


def make(folder: Path, count: int) -> Path:
    """A run of `count` samples: `DISTINCT` made ones, each repeated under other ids."""
    import pandas as pd
    from report_runs import make_run

    make_run(folder, count=DISTINCT, categories=[f"category {i}" for i in range(5)])
    meta = json.loads((folder / "run.json").read_text())
    scores = pd.read_parquet(folder / "scores.parquet")
    samples, tables = dict(meta["samples"]), [scores]
    for copy in range(1, count // DISTINCT):
        names = {old: f"{copy:04x}{old[4:]}" for old in meta["samples"].values()}
        for suite_id, old in meta["samples"].items():
            shutil.copytree(folder / "samples" / old, folder / "samples" / names[old])
            path = folder / "samples" / names[old] / "sample.json"
            data = json.loads(path.read_text())
            data["id"], data["suite_id"] = names[old], f"{copy:04x}{suite_id[4:]}"
            path.write_text(json.dumps(data))
            samples[data["suite_id"]] = data["id"]
        tables.append(scores.assign(sample=scores["sample"].map(names)))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet")
    (folder / "run.json").write_text(json.dumps({**meta, "samples": samples}))
    return folder


def main() -> None:
    from idbench.reports.report_page import build_report
    from tests.reports.browser import browse

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = make(root / "run", count)
        before, processor = time.perf_counter(), time.process_time()
        page = build_report([folder], root / "report.html")
        print(f"build  {time.perf_counter() - before:6.2f} s wall, "
              f"{time.process_time() - processor:.2f} s processor; "
              f"{page.stat().st_size / 1e6:.1f} MB")
        with browse(root / "profile") as browser:
            # Of the page's main thread: another process on the machine does not count.
            browser.devtools("Performance.enable", timeDomain="threadTicks")
            before = time.perf_counter()
            browser.open(page.as_uri())
            print(f"open   {time.perf_counter() - before:6.2f} s, "
                  f"{browser.js(SHOWN)}, {browser.js(NODES)} elements")
            for name, value in (("sort", "arcsim worst"), ("category", "category 3"),
                                ("find", "park"), ("category", ""), ("sort", "cursim best")):
                spent = _processor(browser)
                took = browser.run(
                    "const f = document.querySelector('.tools'), t = performance.now();"
                    f"f.elements[{json.dumps(name)}].value = {json.dumps(value)};"
                    "f.dispatchEvent(new Event('input', {bubbles: true}));"
                    "document.body.offsetHeight; return performance.now() - t;")
                spent = _processor(browser) - spent
                print(f"{name:8} {value or 'all':14} {took:6.0f} ms, {1000 * spent:4.0f} ms "
                      f"processor; {browser.js(SHOWN)}")


def _processor(browser: Browser) -> float:
    """Seconds of processor that the tasks of the page's main thread took so far."""
    metrics = browser.devtools("Performance.getMetrics")["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
