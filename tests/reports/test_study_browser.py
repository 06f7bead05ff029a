"""A scripted voter in a real browser: by keyboard, with a break, on the server and on a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_runs import make_run

from idbench.reports import study_score
from idbench.reports.study_build import build
from idbench.reports.study_files import Study, Votes
from idbench.reports.study_page import write
from idbench.runs import Run

from .browser import Browser, why_not
from .test_study import serving

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"needs a browser; {why_not()}")

LEFT, RIGHT, DOWN, BACKSPACE, ENTER = "\ue012", "\ue014", "\ue015", "\ue003", "\ue007"
PLACE = "document.documentElement.dataset.place"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    runs = [Run.open(make_run(tmp_path / f"folder_{n}", name=n, count=3, seed=i))
            for i, n in enumerate(("secretone", "secrettwo"))]
    return build(runs, [r.name for r in runs], tmp_path / "st", ties=True)


def _begin(browser: Browser, name: str) -> None:
    browser.run("document.querySelector('input[name=voter]').focus()")
    for letter in name:
        browser.press(letter)
    browser.press(ENTER)


def _vote(browser: Browser, study: Study, voter: str, count: int,
          prefers: Callable[[str], int | None]) -> None:
    """Answer the next `count` questions by keys: a system, or None for no difference."""
    trials, questions = study.trials(voter), list(study.questions)
    for _ in range(count):
        place = browser.js(PLACE)
        t, q = map(int, place.split())
        wanted = prefers(questions[q])
        on_left = study.videos[trials[t].left] == wanted
        browser.press(DOWN if wanted is None else LEFT if on_left else RIGHT)
        browser.wait(f"{PLACE} !== '{place}'")


def test_a_voter_votes_by_keyboard_pauses_and_goes_on(browser: Browser, study: Study) -> None:
    def prefers(question: str) -> int | None:
        return {"identity": 0, "motion_alignment": 1}.get(question)

    with serving(study) as server:
        browser.open(server.address)
        _begin(browser, "anna")
        browser.wait(f"{PLACE} === '0 0'")
        _vote(browser, study, "anna", 4, prefers)
        assert browser.js("document.querySelector('.where').textContent") == (
            "Pair 2 of 3, question 2 of 3")
        assert browser.js("document.querySelector('progress').value") == 4
        # On disk at once; closing the page loses nothing.
        answers = Votes.of(study, "anna").answers
        assert [len(answers[t.pair]) for t in study.trials("anna")[:2]] == [3, 1]
        browser.open(server.address + "?voter=anna")
        browser.run("document.querySelector('form button').click()")
        browser.wait(f"{PLACE} === '1 1'")
        _vote(browser, study, "anna", 5, prefers)
        assert browser.js(PLACE) == "done"
        assert browser.js("!document.getElementById('done').hidden")
        assert browser.console_errors() == []
    result = study_score.score(study, [study.folder / "votes" / "anna.json"])
    rates = {p.question: p.rate.mean for p in result.preferences}
    assert rates == {"identity": 1, "motion_alignment": 0, "motion_naturalness": 0.5}


def test_an_answer_can_be_taken_back_and_a_held_key_votes_once(
    browser: Browser, study: Study
) -> None:
    with serving(study) as server:
        browser.open(server.address)
        _begin(browser, "ben")
        browser.wait(f"{PLACE} === '0 0'")
        browser.run("for (let i = 0; i < 5; i++) document.body.dispatchEvent(new KeyboardEvent("
                    "'keydown', {key: '1', repeat: i > 0, bubbles: true}))")
        browser.wait(f"{PLACE} === '0 1'")
        browser.press("2")
        browser.wait(f"{PLACE} === '0 2'")
        browser.press(BACKSPACE)
        browser.wait(f"{PLACE} === '0 1'")
        first = study.trials("ben")[0].pair
        assert Votes.of(study, "ben").answers == {first: {"identity": "left"}}
        _vote(browser, study, "ben", 2, lambda _: 0)
        browser.press(BACKSPACE)  # back over the edge of a pair shows that pair again
        browser.wait(f"{PLACE} === '0 2'")
        assert len(Votes.of(study, "ben").answers[first]) == 2


def test_both_videos_play_and_the_page_tells_nothing(browser: Browser, study: Study) -> None:
    with serving(study) as server:
        browser.open(server.address)
        _begin(browser, "carl")
        for _ in range(3):
            browser.wait("[...document.querySelectorAll('video')].every(v => v.currentTime > 0)")
            text = browser.js("document.documentElement.outerHTML")
            names = browser.js("performance.getEntriesByType('resource').map(e => e.name)")
            for secret in ("secret", "folder_", "a000", "a001", "a002", "a003"):
                assert secret not in text and not any(secret in n for n in names)
            assert browser.js("[...document.querySelectorAll('.references img')]"
                              ".every(i => i.naturalWidth > 0)")
            assert browser.js("document.querySelectorAll('.references img').length") == 2
            place = browser.js(PLACE)
            _vote(browser, study, "carl", 3, lambda _: 0)
            assert browser.js(PLACE) != place


def test_an_answer_that_was_not_kept_is_said_and_not_passed_over(
    browser: Browser, study: Study
) -> None:
    with serving(study) as server:
        browser.open(server.address)
        _begin(browser, "dora")
        browser.wait(f"{PLACE} === '0 0'")
    browser.press("1")  # the server has gone
    browser.wait("!document.querySelector('.problem').hidden")
    assert browser.js(PLACE) == "0 0"
    assert "Is the study still running" in browser.js(
        "document.querySelector('.problem').textContent")
    browser.console_errors()


def test_a_page_on_disk_goes_on_and_gives_its_answers_as_a_file(
    browser: Browser, study: Study, tmp_path: Path
) -> None:
    page = tmp_path / "anna.html"
    write(study, "anna", page)
    browser.devtools("Browser.setDownloadBehavior", behavior="allow",
                     downloadPath=str(tmp_path / "down"))
    browser.open(page.as_uri())
    browser.run("document.querySelector('form button').click()")
    browser.wait(f"{PLACE} === '0 0'")
    _vote(browser, study, "anna", 4, lambda _: 1)
    browser.open(page.as_uri())
    browser.run("document.querySelector('form button').click()")
    browser.wait(f"{PLACE} === '1 1'")
    _vote(browser, study, "anna", 5, lambda _: 1)
    browser.run("document.querySelector('.save').click()")
    file = tmp_path / "down" / "anna.json"
    for _ in range(100):
        if file.is_file() and file.stat().st_size:
            break
        browser.js("new Promise(r => setTimeout(r, 50))")
    assert browser.console_errors() == []
    assert json.loads(file.read_text())["voter"] == "anna"
    result = study_score.score(study, [file])
    assert [p.rate.mean for p in result.preferences] == [0, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(390, 800), (1280, 760)])
def test_a_pair_its_question_and_its_buttons_fit_in_one_view(
    browser: Browser, study: Study, width: int, height: int
) -> None:
    try:
        browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                         deviceScaleFactor=1, mobile=False)
        with serving(study) as server:
            browser.open(server.address)
            _begin(browser, "emil")
            browser.wait(f"{PLACE} === '0 0'")
            assert browser.js("document.documentElement.scrollWidth") <= width
            bottom = "document.querySelector('.choices').getBoundingClientRect().bottom"
            assert browser.js(bottom) <= height
            assert browser.js("[...document.querySelectorAll('.choices button')]"
                              ".every(b => b.scrollWidth <= b.clientWidth)")
            assert browser.js("document.querySelector('.small').offsetWidth") == browser.js(
                "document.querySelector('.choices').offsetWidth")
    finally:
        browser.devtools("Emulation.clearDeviceMetricsOverride")
