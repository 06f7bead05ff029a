"""`idbench suites get` against a local server that speaks as the Hugging Face hub does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from file_server import Server, serving, stand_for_the_hub
from PIL import Image

from idbench.cli import main
from idbench.importing.layouts import BENCHMARKS
from idbench.suite import load_suite


def portrait(number: int) -> bytes:
    """A portrait of the suite avatars, which MTCNN finds, as PNG."""
    path = load_suite("avatars").folder / "references" / f"a{number:03d}.png"
    buffer = io.BytesIO()
    Image.open(path).resize((160, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def consisid() -> dict[str, bytes]:
    name = BENCHMARKS["consisid-bench"].repository
    rows = [f"{c}{n},{c},x,a {c} man {n},a {c} woman {n}"
            for c in ("smile", "walk", "cook") for n in (1, 2)]
    files = {f"{name}/eval/face_images/{n}_man.png": portrait(n) for n in range(4)}
    files[f"{name}/video_caption_eval_old.csv"] = "\n".join(
        ["index,Class,Original_Prompt,Refined_man,Refined_woman", *rows]).encode()
    files[f"{name}/videos/videos.tar.partaa"] = b"63 GB that nobody asked for"
    return files


def opens2v() -> dict[str, bytes]:
    name = BENCHMARKS["opens2v-eval"].repository
    samples = {
        "singleface_1": {"img_paths": ["Images/man/1.png"], "prompt": "he smiles",
                         "class_label": ["man"]},
        "multiface_1": {"img_paths": ["Images/man/1.png", "Images/woman/2.png"],
                        "prompt": "they talk", "class_label": ["man", "woman"]},
    }
    return {
        f"{name}/Open-Domain_Eval.json": json.dumps(samples).encode(),
        f"{name}/Images/man/1.png": portrait(0), f"{name}/Images/woman/2.png": portrait(1),
        f"{name}/Results/a.mp4": b"x",
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with serving({**consisid(), **opens2v()}) as server:
        stand_for_the_hub(server.address, tmp_path / "hub", monkeypatch)
        yield server


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_consisid_bench_draws_people_by_seed_and_downloads_no_videos(
    hub: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    for seed in ("0", "1"):
        assert cli("suites", "get", "consisid-bench", "--people", "2", "--seed", seed) == 0
        said = capsys.readouterr()
        assert "pictures of real people" in said.err and "Apache-2.0" in said.err
        suite = load_suite(Path(f"suites/consisid-bench-seed{seed}"))
        assert suite.splits == {"single": 6}, "two people with a prompt of each category"
        drawn.append({r.name for s in suite.samples("single") for r in s.references})
    assert all(len(people) == 2 for people in drawn)
    assert not [path for path, _ in hub.asked if "videos" in path]


def test_opens2v_eval_keeps_its_own_pairs_of_several_people(
    hub: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("suites", "get", "opens2v-eval", "--out", "s") == 0, capsys.readouterr().err
    assert load_suite(Path("s")).splits == {"single": 1, "multi": 1}
    assert not [path for path, _ in hub.asked if "Results" in path]


def test_an_unknown_benchmark_and_a_machine_without_a_network(
    hub: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("suites", "get", "consisid") == 2
    assert "did you mean 'consisid-bench'?" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert cli("suites", "get", "opens2v-eval") == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_offline_in_a_new_process_is_one_sentence(tmp_path: Path) -> None:
    """In this process, other tests have imported all of huggingface_hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    for out, told in (("new", "HF_HUB_OFFLINE is set"), (".", "already exists")):
        done = subprocess.run(
            [sys.executable, "-m", "idbench.cli", "suites", "get", "opens2v-eval", "--out", out],
            cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    from idbench.downloads import from_hub
    from idbench.errors import UserError

    def gone(hub: object, offline: bool) -> str:
        raise LocalEntryNotFoundError(
            "An error happened while trying to locate the file on the Hub and we cannot find "
            "the requested files in the local cache. Please check your connection and try again.")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"\(the hub does not answer\); check the network"):
        from_hub("one", gone)
