"""A tiny third-party package (a model and a metric) and a tiny suite, for the harness's tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from idbench.cli import main
from idbench.suite import write_checksums

PLUGIN = '''
"""A model that paints the sample's seed, and a metric that needs no network.

After TOY_STOP samples the model waits in the next one, until there is a file "go"."""
import os, time
import numpy as np
from idbench.metrics.base import Metric, make_score
from idbench.types import Video


class Toy:
    name = "toy"
    revision = "1"

    def __init__(self, variant=None, steps=3, fail="", die="", once="", maximum_references=2):
        self.variant, self.steps, self.fail = variant, steps, fail
        self.die, self.once = die, once
        self.maximum_references = maximum_references
        self.begun = 0

    def settings(self):
        return {"steps": self.steps}

    def weight_hashes(self):
        return {}

    def generate(self, samples):
        for sample in samples:
            time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
            while os.environ.get("TOY_STOP") == str(self.begun) and not os.path.exists("go"):
                time.sleep(0.01)
            self.begun += 1
            if os.environ.get("TOY_LOG"):
                with open(os.environ["TOY_LOG"], "a") as log:
                    log.write(sample.id + "\\n")
            if self.die and self.die in sample.prompt and not os.path.exists(self.once):
                if self.once:
                    open(self.once, "w").close()
                print("toy is about to die", flush=True)
                os.kill(os.getpid(), 9)
            if self.fail and self.fail in sample.prompt:
                raise RuntimeError("toy cannot paint this")
            rng = np.random.default_rng(sample.seed)
            yield Video(rng.integers(0, 255, (5, 32, 48, 3), dtype=np.uint8), 8.0)


def _scores(embeddings):
    sample = embeddings.sample
    if os.path.exists("deadly") and "park" in sample.prompt:
        os.kill(os.getpid(), 9)
    if "unmeasurable" in sample.prompt:
        return [make_score(sample, "sampled", None, None, None, "nothing to measure")]
    return [make_score(sample, "sampled", None, None, len(embeddings.frames) + sample.seed % 7)]


SAMPLED = Metric(
    name="sampled", title="Sampled", higher_is_better=True, range=(0.0, 99.0),
    formula="frames looked at + seed mod 7", source="a test", scores=_scores, networks=(),
)
'''
ENTRY_POINTS = """
[idbench.models]
toy = toy_plugin:Toy
[idbench.metrics]
sampled = toy_plugin:SAMPLED
"""


@dataclass
class Done:
    """What a command left: exit code, standard output and error."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class World:
    """Where a test's commands run: a folder, a suite, and the environment of the plugin."""

    folder: Path
    suite: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`idbench ARGUMENTS` in a process of its own, in its own process group."""
        return subprocess.Popen(
            [sys.executable, "-m", "idbench.cli", *arguments], cwd=self.folder, text=True,
            env={**os.environ, **self.environment, **environment}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def apart(self, *arguments: str, **environment: str) -> Done:
        """`idbench ARGUMENTS` in a process of its own, waited for."""
        process = self.start(*arguments, **environment)
        out, error = process.communicate(timeout=600)
        return Done(process.returncode, out, error)

    def run(self, *arguments: str, **environment: str) -> Done:
        """`idbench ARGUMENTS` in this process, as the console script would run it."""
        out, error = io.StringIO(), io.StringIO()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            with contextlib.chdir(self.folder), redirect_stdout(out), redirect_stderr(error):
                main(arguments)
        except SystemExit as end:
            return Done(int(end.code or 0), out.getvalue(), error.getvalue())
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        raise AssertionError("the console script did not exit")

    def toy(self, *more: str) -> list[str]:
        """Arguments of the usual toy run."""
        return [
            "run", "--model", "toy", "--split", "single", "--suite", str(self.suite),
            "--metric", "sampled", "--out", "out", *more,
        ]


def install_plugin(base: Path) -> Path:
    """A folder under `base` into which pip has installed the third-party package."""
    wheel = base / "toy_plugin-1.0-py3-none-any.whl"
    info = "toy_plugin-1.0.dist-info"
    files = {
        "toy_plugin.py": PLUGIN,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                         "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    target = base / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--target", str(target), str(wheel)], check=True, capture_output=True,
    )
    return target


def make_suite(folder: Path, people: int = 4) -> Path:
    """A suite of `people` identities x 2 prompts in `single`, and 2 pairs in `multi`."""
    (folder / "splits").mkdir(parents=True)
    (folder / "references").mkdir()
    prompts = [
        {"prompt_id": "smile", "category": "expression", "prompt": "a person smiles"},
        {"prompt_id": "park", "category": "scene", "prompt": "a person in a park"},
    ]
    names = [f"p{i}" for i in range(people)]
    for i, name in enumerate(names):
        picture = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "references" / f"{name}.png")

    def row(prompt: str, *who: str) -> dict[str, object]:
        return {"prompt_id": prompt, "references": [
            {"kind": "face", "name": n, "file": f"references/{n}.png"} for n in who]}

    splits = {
        "single": [row(p["prompt_id"], n) for n in names for p in prompts],
        "multi": [row("smile", *names[:2]), row("park", *names[2:4])],
    }
    head = {
        "name": "tiny", "version": "0.1", "description": "four people", "licence": "CC0",
        "changelog": [{"version": "0.1", "changes": "first"}],
        "splits": {name: len(rows) for name, rows in splits.items()},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(head))
    (folder / "identities.json").write_text(json.dumps({n: {} for n in names}))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    for name, rows in splits.items():
        text = "".join(json.dumps(r) + "\n" for r in rows)
        (folder / "splits" / f"{name}.jsonl").write_text(text)
    write_checksums(folder)
    return folder
