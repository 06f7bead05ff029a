"""Many samples in a real browser: one page of them at a time, whatever is sorted or linked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_run

from idbench.reports import report_data, report_page
from idbench.reports.report_page import PAGE_SIZE, build_report

from .browser import Browser, why_not
from .test_html import HOSTILE

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"needs a browser; {why_not()}")

CARDS = "[...document.querySelectorAll('.card')].map(c => c.id)"
COUNT = "document.querySelector('output[name=count]').textContent"
NEXT, ENTER = "document.querySelector('.pages [data-step=\"1\"]')", "\ue007"
PLACES = ("park", "city", "snow", "kitchen", "library", "studio", "mountains")


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight samples, three at a time; the last has a hostile prompt."""
    root = tmp_path_factory.mktemp("pages")
    folder = make_run(root / "toy", count=8, prompts=[*(f"A {p}." for p in PLACES), HOSTILE])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "PAGE_SIZE", 3)
        return build_report([folder], root / "report.html").as_uri()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A report of 1,000 cards, and their ids from the worst ArcSim to the best."""
    root = tmp_path_factory.mktemp("large")
    read, values = report_data.read, {}

    def many(*arguments: Any) -> report_data.ReportData:
        report = read(*arguments)
        cards = []
        for i in range(1000):
            card = report.cards[i % len(report.cards)]
            key, value = f"{i:04x}{card.key[4:]}", (i * 577 % 1000) / 1000
            values[f"s-{key}"] = value
            take = replace(card.takes[0], values={
                **card.takes[0].values, "arcsim": report_data.Value(value)})
            cards.append(replace(card, key=key, takes=[take]))
        return replace(report, cards=tuple(cards))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_data, "read", many)
        page = build_report([make_run(root / "toy", count=4)], root / "report.html")
    return page.as_uri(), sorted(values, key=values.__getitem__)


def processor_seconds(browser: Browser) -> float:
    """What the page's tasks have taken so far."""
    found = browser.devtools("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in found if one["name"] == "TaskDuration")


def test_a_large_report_sorts_and_filters_without_lag(
    browser: Browser, large: tuple[str, list[str]]
) -> None:
    """What costs time is cards in the document and cards moved: at most one page of each. Times
    are of the page's thread on the processor, which a busy machine does not stretch."""
    page, worst_first = large
    browser.devtools("Performance.enable", timeDomain="threadTicks")
    browser.open(page)
    assert 0 < processor_seconds(browser) < 10
    assert len(browser.js(CARDS)) == PAGE_SIZE
    assert browser.js(COUNT) == f"1,000 samples, 1 to {PAGE_SIZE} shown"
    for name, value, expected in (
        ("sort", "arcsim worst", worst_first), ("sort", "arcsim best", worst_first[::-1]),
        ("category", "garment", None), ("category", "", worst_first[::-1]), ("sort", "", None),
    ):
        before = processor_seconds(browser)
        moved = browser.run(f"""
            const form = document.querySelector('.tools'), moves = [];
            const seen = new MutationObserver((found) => moves.push(...found));
            seen.observe(document.querySelector('.cards'), {{ childList: true, subtree: true }});
            form.elements[{json.dumps(name)}].value = {json.dumps(value)};
            form.dispatchEvent(new Event('input', {{ bubbles: true }}));
            document.body.offsetHeight;
            moves.push(...seen.takeRecords());
            const nodes = moves.flatMap((m) => [...m.addedNodes, ...m.removedNodes]);
            return nodes.length;
        """)
        assert moved <= 200 and len(browser.js(CARDS)) == PAGE_SIZE
        took = processor_seconds(browser) - before
        assert took < 1, f"{name} {value}: {took:.2f} s"
        if expected:
            assert browser.js(CARDS) == expected[:PAGE_SIZE]
    assert browser.console_errors() == []


def test_a_link_reaches_a_sample_of_any_page_under_any_sort(
    browser: Browser, large: tuple[str, list[str]]
) -> None:
    page, worst_first = large
    browser.open(f"{page}#{worst_first[777]}")  # as it is opened
    browser.wait(f"document.activeElement.id === '{worst_first[777]}'")
    browser.choose("sort", "arcsim worst")
    browser.run(f"location.hash = '{worst_first[500]}'")
    browser.wait(f"document.activeElement.id === '{worst_first[500]}'")
    first = 500 // PAGE_SIZE * PAGE_SIZE
    assert browser.js(CARDS) == worst_first[first:first + PAGE_SIZE]
    assert browser.js("document.querySelector('.card.chosen').id") == worst_first[500]
    top = "document.querySelector('.card.chosen').getBoundingClientRect().top"
    browser.wait(f"{top} > -500 && {top} < 1000")
    browser.choose("find", "nowhere")
    browser.run(f"location.hash = '{worst_first[3]}'")
    browser.wait(f"document.activeElement.id === '{worst_first[3]}'")


def test_pages_turn_by_keyboard_and_their_videos_play(browser: Browser, paged: str) -> None:
    browser.open(paged)
    first = browser.js(CARDS)
    browser.run(f"{NEXT}.focus()")
    browser.press(ENTER)
    second = browser.js(CARDS)
    assert len(second) == 3 and not set(first) & set(second)
    assert browser.js(COUNT) == "8 samples, 4 to 6 shown"
    assert browser.js("document.activeElement.id") == second[0]  # goes on reading there
    browser.wait("document.querySelector('video').currentTime > 0")
    browser.run("const i = document.querySelectorAll('.pages input')[1]; i.value = '9';"
                "i.dispatchEvent(new Event('change'))")
    assert browser.js(COUNT) == "8 samples, 7 to 8 shown"
    assert browser.js(f"{NEXT}.disabled && document.querySelector('.pages input').value") == "3"
    browser.run("location.reload()")
    browser.wait("document.documentElement.dataset.ready === '1'")
    assert browser.js(COUNT) == "8 samples, 7 to 8 shown"
    browser.choose("find", "city")
    assert browser.js(COUNT) == "1 sample" and browser.js("document.querySelector('.pages').hidden")
    assert browser.console_errors() == []


def test_a_hostile_prompt_of_a_later_page_stays_text(browser: Browser, paged: str) -> None:
    browser.open(paged)
    browser.choose("find", "onerror")
    assert browser.js("document.querySelector('.prompt').textContent") == HOSTILE
    assert "pwned" not in browser.js("document.title")
    assert browser.js("document.querySelectorAll('.cards img[src=x], .cards script').length") == 0
    assert browser.console_errors() == []


def test_all_pages_are_printed(browser: Browser, paged: str) -> None:
    browser.open(paged)
    browser.run(f"addEventListener('beforeprint', () => {{ window.printed = {CARDS}; }})")
    browser.devtools("Page.printToPDF", printBackground=True)
    assert len(browser.js("window.printed")) == 8
    assert len(browser.js(CARDS)) == 3  # and the screen is as before


def test_a_report_of_one_page_needs_no_turning(browser: Browser, run_folder: Path) -> None:
    browser.open(build_report([run_folder], run_folder / "report.html").as_uri())
    assert browser.js("[...document.querySelectorAll('.pages')].every(p => p.hidden)")
    assert browser.js(COUNT) == "6 samples"
