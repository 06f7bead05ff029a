"""The human study: blind, balanced, and votes that are never lost."""

from __future__ import annotations

import collections
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import make_run

from idbench.errors import UserError
from idbench.reports.study_build import build
from idbench.reports.study_files import QUESTIONS, Study, Votes, check_name
from idbench.reports.study_page import HOST, StudyServer, render, write
from idbench.runs import Run
from idbench.video import read_video

SYSTEMS = ("secretone", "secrettwo", "secretthree")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return systems(tmp_path_factory.mktemp("study_runs"))


def systems(root: Path) -> list[Run]:
    """Seven videos of each of three systems; the first system failed at one."""
    return [Run.open(make_run(root / f"folder_{name}", name=name, count=7, seed=i,
                              fail=[2] if i == 0 else []))
            for i, name in enumerate(SYSTEMS)]


def build_study(runs: list[Run], folder: Path, **more: Any) -> Study:
    return build(runs, [r.name for r in runs], folder, **more)


@contextmanager
def serving(study: Study) -> Iterator[StudyServer]:
    with StudyServer(study) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _ask(server: StudyServer, method: str, path: str, body: Any = None, **headers: str):
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    text = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, text, {**kind, **headers})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), data


def answer(study: Study, voter: str, prefers: Any) -> Path:
    """Votes of a made-up voter: `prefers(question, first system, second system)` -> choice."""
    kept = Votes.of(study, voter)
    for trial in study.trials(voter):
        for question in study.questions:
            wanted = prefers(question, study.videos[trial.left], study.videos[trial.right])
            if wanted is not None:
                side = wanted if wanted == "tie" else (
                    "left" if study.videos[trial.left] == wanted else "right")
                kept.put({"pair": trial.pair, "question": question, "choice": side, "seconds": 1})
    return kept._path


# -- building


def test_pairs_are_of_one_sample_and_only_where_all_have_a_video(
    runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    assert len(study.pairs) == 6  # of one sample the first run has no video
    for pair in study.pairs:
        assert (study.videos[pair.first], study.videos[pair.second]) == (0, 1)
        key = study.samples[pair.sample].suite_id
        for code, run in ((pair.first, runs[0]), (pair.second, runs[1])):
            record = next(r for r in run.records() if r.suite_id == key)
            shown = read_video(study.folder / "media" / code).frames.astype(float)
            assert np.abs(shown - read_video(record.video).frames).mean() < 3


def test_every_two_systems_meet_equally_often_within_the_limit(
    runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs, tmp_path / "st", pairs=10)
    met = collections.Counter((study.videos[p.first], study.videos[p.second])
                              for p in study.pairs)
    assert met == {(0, 1): 3, (0, 2): 3, (1, 2): 3}
    used = {c for p in study.pairs for c in (p.first, p.second)}
    assert used == set(study.videos)  # nothing is there that nobody sees
    with pytest.raises(UserError, match="need --pairs 3 or more"):
        build_study(runs, tmp_path / "other", pairs=2)


def test_the_limit_keeps_identities_and_categories_even(tmp_path: Path) -> None:
    pair = [Run.open(make_run(tmp_path / n, name=n, count=24, people=1, seed=i,
                              identity_names=["a", "b", "c"], categories=("x", "y")))
            for i, n in enumerate("pq")]
    study = build_study(pair, tmp_path / "st", pairs=6)
    people = collections.Counter(s.identities[0] for s in study.samples.values())
    kinds = collections.Counter(s.category for s in study.samples.values())
    assert people == {"a": 2, "b": 2, "c": 2} and kinds == {"x": 3, "y": 3}


def test_orders_are_balanced_seeded_and_differ_between_voters(
    runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs, tmp_path / "st", seed=3)
    orders = {name: study.trials(name) for name in ("anna", "ben", "carl", "dora")}
    assert len({tuple(t.pair for t in trials) for trials in orders.values()}) == 4
    sample_of = {p.id: p.sample for p in study.pairs}
    lefts = collections.Counter()
    for name, trials in orders.items():
        assert trials == study.trials(name) == Study.open(study.folder).trials(name)
        assert sorted(t.pair for t in trials) == sorted(p.id for p in study.pairs)
        left = collections.Counter((study.videos[t.left], study.videos[t.right]) for t in trials)
        lefts.update(left)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert left[a, b] == left[b, a] == 3
        follows = [sample_of[a.pair] == sample_of[b.pair]
                   for a, b in zip(trials, trials[1:], strict=False)]
        assert sum(follows) <= 1
    again = build_study(runs, tmp_path / "again", seed=3)
    other = build_study(runs, tmp_path / "other", seed=4)
    assert again.model_dump() == study.model_dump() and other.pairs != study.pairs


@pytest.mark.parametrize("case", ["one run", "taken", "nothing shared"])
def test_mistakes_are_said_plainly(case: str, runs: list[Run], tmp_path: Path) -> None:
    if case == "one run":
        with pytest.raises(UserError, match="at least two runs"):
            build_study(runs[:1], tmp_path / "st")
    elif case == "taken":
        (tmp_path / "st").mkdir()
        (tmp_path / "st" / "mine.txt").write_text("kept")
        with pytest.raises(UserError, match="already exists"):
            build_study(runs[:2], tmp_path / "st")
        assert [p.name for p in tmp_path.rglob("*")] == ["st", "mine.txt"]
    else:
        other = Run.open(make_run(tmp_path / "other", prompts=["Something else."]))
        with pytest.raises(UserError, match="share no sample"):
            build_study([runs[0], other], tmp_path / "st")


# -- blindness


def test_nothing_that_a_voter_receives_names_a_system_a_file_or_a_person(
    runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs[:2], tmp_path / "secretplace")
    records = [r for run in runs for r in run.records()]
    secrets = {*SYSTEMS, "folder_", "secretplace", "study.json", "video.mp4", "avatars", "suite",
               *(r.sample.id for r in records), *(r.suite_id for r in records),
               *(p for r in records for p in r.sample.identities),
               *(r.image.name for record in records for r in record.sample.references)}
    with serving(study) as server:
        received = [_ask(server, "GET", "/"), _ask(server, "GET", "/state?voter=anna")]
        codes = {c for t in study.trials("anna") for c in (t.left, t.right, *t.references)}
        received += [_ask(server, "GET", f"/media/{c}") for c in sorted(codes)]
        received += [_ask(server, "GET", p) for p in (
            "/study.json", "/media/../study.json", "/media/study.json", "/votes/anna.json",
            "/media/%2e%2e%2fstudy.json", "/nothing")]
        received.append(_ask(server, "POST", "/vote", {"voter": "../x", "pair": "p0"}))
    assert [status for status, *_ in received[-7:]] == [404] * 6 + [400]
    write(study, "anna", tmp_path / "page.html")
    received.append((200, {}, (tmp_path / "page.html").read_bytes()))
    for _, headers, body in received:
        text = (repr(headers).encode() + body).lower()
        for secret in secrets:
            # Identities such as "a000" may occur by chance inside base64 of a video.
            if len(secret) > 4 or b"base64" not in text:
                assert secret.lower().encode() not in text, secret


def test_one_video_has_one_code_and_codes_of_a_system_have_nothing_in_common(
    runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    of = [sorted(c for c, s in study.videos.items() if s == i) for i in (0, 1)]
    assert all(len(c) == 12 and set(c) <= set("0123456789abcdef") for c in of[0] + of[1])
    both = sorted(of[0] + of[1])
    assert both != of[0] + of[1] and both != of[1] + of[0]  # no block of codes is one system
    trial = study.trials("anna")[0]
    assert set(trial.__dataclass_fields__) == {"pair", "prompt", "references", "left", "right"}


# -- the server


def test_only_this_machine_and_this_page_are_answered(runs: list[Run], tmp_path: Path) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    pair, question = study.trials("anna")[0].pair, next(iter(QUESTIONS))
    vote = {"voter": "anna", "pair": pair, "question": question, "choice": "left", "seconds": 1}
    with serving(study) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert _ask(server, "GET", "/", Host="evil.example")[0] == 403
        assert _ask(server, "POST", "/vote", vote, **{"Content-Type": "text/plain"})[0] == 404
        assert _ask(server, "POST", "/vote", "x" * 5000)[0] == 413
        assert not (study.folder / "votes").exists()
        assert _ask(server, "POST", "/vote", vote)[0] == 200
        assert Votes.of(study, "anna").answers == {pair: {question: "left"}}
        status, _, body = _ask(server, "GET", "/state?voter=anna")
        assert status == 200 and json.loads(body)["answers"] == {pair: {question: "left"}}


@pytest.mark.parametrize("change", [
    {"pair": "p99"}, {"pair": ["p0"]}, {"question": "speed"}, {"choice": "tie"},
    {"choice": "both"}, {"seconds": -1}, {"seconds": "1"}, {"voter": 7},
])
def test_answers_that_fit_no_question_are_refused(
    change: dict[str, Any], runs: list[Run], tmp_path: Path
) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    vote = {"voter": "anna", "pair": "p0", "question": "identity", "choice": "left", "seconds": 1}
    with serving(study) as server:
        assert _ask(server, "POST", "/vote", {**vote, **change})[0] == 400
        assert _ask(server, "POST", "/vote", "[1, 2")[0] == 400
    assert not list(study.folder.rglob("votes/*.json"))


def test_a_failed_write_keeps_the_answers_that_were_there(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    kept = Votes.of(study, "anna")
    vote = {"question": "identity", "choice": "left", "seconds": 1}
    kept.put({**vote, "pair": "p0"})
    before = kept._path.read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError):
        kept.put({**vote, "pair": "p1"})
    assert kept._path.read_bytes() == before and set(kept.answers) == {"p0"}
    assert [p.name for p in kept._path.parent.iterdir()] == ["anna.json"]


def test_what_a_full_disk_says_is_not_for_voters(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    study = build_study(runs[:2], tmp_path / "secretplace")
    vote = {"voter": "anna", "pair": "p0", "question": "identity", "choice": "left", "seconds": 1}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with serving(study) as server:
        monkeypatch.setattr("os.replace", full)
        status, _, body = _ask(server, "POST", "/vote", vote)
        monkeypatch.undo()
        assert status == 500 and b"secretplace" not in body
        assert "secretplace" in capfd.readouterr().err
        assert _ask(server, "POST", "/vote", vote)[0] == 200


def test_answers_can_be_changed_and_taken_back(runs: list[Run], tmp_path: Path) -> None:
    study = build_study(runs[:2], tmp_path / "st", ties=True)
    kept = Votes.of(study, "anna")
    for choice in ("left", "tie"):
        kept.put({"pair": "p0", "question": "identity", "choice": choice, "seconds": 1})
    assert Votes.of(study, "anna").answers == {"p0": {"identity": "tie"}}
    kept.put({"pair": "p0", "question": "identity", "choice": None})
    assert Votes.of(study, "anna").answers == {}


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 41, "ü", ".hidden", "a/b"])
def test_names_that_are_no_file_names_are_refused(
    name: str, runs: list[Run], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot name a voter"):
        check_name(name)


def test_hostile_prompts_stay_text(tmp_path: Path) -> None:
    prompt = '</script><script>alert(1)</script><img src=x onerror="alert(1)">'
    pair = [Run.open(make_run(tmp_path / n, name=n, count=2, prompts=[prompt])) for n in "pq"]
    study = build_study(pair, tmp_path / "st")
    write(study, "anna", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script") == 2 and "onerror=\"" not in text
    assert render(study).count("<script") == 2
