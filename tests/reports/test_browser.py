"""The report in a real browser: opens clean, sorts, filters, plays, links, stays safe."""

from __future__ import annotations

import pytest
from report_runs import make_run

from idbench.reports.report_page import build_report

from .browser import Browser, why_not
from .test_html import HOSTILE

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"needs a browser; {why_not()}")

ORDER = "[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.id)"
RIGHT, SPACE = "\ue014", " "


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("pages")
    folders = [
        make_run(root / "a", variant="multi", count=8, seed=1, fail=[2], missing=[3],
                 prompts=[f"Two people talk in the {p}." for p in (
                     "park", "city", "snow", "kitchen", "library", "studio", "mountains")]
                 + [HOSTILE]),
        make_run(root / "b", variant="base", count=8, seed=2, level=0.1,
                 prompts=[f"Two people talk in the {p}." for p in (
                     "park", "city", "snow", "kitchen", "library", "studio", "mountains")]
                 + [HOSTILE]),
    ]
    return build_report(folders, root / "report.html").as_uri()


def _values(browser: Browser, metric: str, run: int = 0) -> list[float]:
    return browser.js(
        "[...document.querySelectorAll('.card')].filter(c => !c.hidden)"
        f".map(c => JSON.parse(c.dataset.values)['{metric}'] || [])"
        f".map(v => v.filter(p => p[0] === {run})[0]).map(p => p ? p[1] : null)")


def test_it_opens_without_console_errors_and_hostile_prompts_stay_text(
    browser: Browser, page: str
) -> None:
    browser.open(page)
    assert browser.console_errors() == []
    assert "pwned" not in browser.js("document.title")
    assert HOSTILE in browser.js("document.querySelector('.cards').textContent")
    assert browser.js("document.querySelectorAll('script').length") == 1
    assert browser.js("document.querySelectorAll('.cards img[src=x]').length") == 0


def test_an_injected_script_is_refused_by_the_policy(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
                "document.body.append(s);")
    assert browser.js("window.ran === undefined")
    assert any("Content Security Policy" in m for m in browser.console_errors())


def test_sorting_puts_the_worst_first_and_the_unscored_last(browser: Browser, page: str) -> None:
    browser.open(page)
    before = browser.js(ORDER)
    for box in ("1",):  # only the first system
        browser.run(f"document.querySelector('input[name=run][value=\"{box}\"]').click()")
    browser.choose("sort", "arcsim worst")
    values = _values(browser, "arcsim")
    known = [v for v in values if v is not None]
    assert known == sorted(known) and len(known) == 6 and values[-2:] == [None, None]
    browser.choose("sort", "arcsim best")
    assert [v for v in _values(browser, "arcsim") if v is not None] == known[::-1]
    browser.choose("sort", "")
    assert browser.js(ORDER) == before


def test_filters_combine_and_say_how_many_are_left(browser: Browser, page: str) -> None:
    browser.open(page)
    count = "document.querySelector('output[name=count]').textContent"
    browser.choose("status", "unscored")
    assert len(browser.js(ORDER)) == 2 and browser.js(count) == "2 samples"
    browser.choose("find", "SNOW talk")
    assert len(browser.js(ORDER)) == 1 and browser.js(count) == "1 sample"
    browser.choose("find", "nowhere")
    assert browser.js(ORDER) == [] and not browser.js("document.querySelector('.empty').hidden")
    browser.run("document.querySelector('button[type=reset]').click()")
    browser.wait(f"{ORDER}.length === 8")
    browser.choose("identity", "a002")
    browser.choose("category", "garment")
    assert browser.js(ORDER) == browser.js(
        "[...document.querySelectorAll('.card')].filter(c => c.dataset.category === 'garment' && "
        "JSON.parse(c.dataset.identities).includes('a002')).map(c => c.id)")


def test_systems_can_be_hidden(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("document.querySelector('input[name=run][value=\"0\"]').click()")
    shown = browser.js("[...document.querySelectorAll('.take')].filter(t => !t.hidden)"
                       ".map(t => t.dataset.run)")
    assert shown == ["1"] * 8


def test_a_video_plays_in_sight_and_steps_by_keys(browser: Browser, page: str) -> None:
    browser.open(page)
    video = "document.querySelector('video')"
    browser.run(f"{video}.scrollIntoView({{block: 'center'}})")
    browser.wait(f"!{video}.paused && {video}.currentTime > 0")
    browser.run(f"{video}.focus()")
    browser.press(SPACE)
    browser.wait(f"{video}.paused")
    browser.run(f"{video}.currentTime = 0")
    browser.wait(f"!{video}.seeking")
    browser.press(RIGHT)
    browser.wait(f"Math.floor({video}.currentTime * 8) === 1")
    # A click on the strip of faces shows that frame.
    browser.run("const t = document.querySelector('.track'), b = t.getBoundingClientRect();"
                "t.dispatchEvent(new MouseEvent('click', {bubbles: true, "
                "clientX: b.left + b.width * 6.5 / 9, clientY: b.top + 5}))")
    browser.wait(f"Math.floor({video}.currentTime * 8) === 6")
    assert browser.js(f"{video}.paused")
    browser.wait("!document.querySelector('.track .head').hidden")


def test_a_link_selects_a_sample_even_when_it_is_filtered_out(browser: Browser, page: str) -> None:
    browser.open(page)
    last = browser.js(ORDER)[-1]
    browser.choose("find", "park")
    assert last not in browser.js(ORDER)
    browser.run(f"location.hash = '{last}'")
    browser.wait(f"document.activeElement.id === '{last}'")
    assert browser.js("document.querySelector('.card.chosen').id") == last
    top = f"document.getElementById('{last}').getBoundingClientRect().top"
    browser.wait(f"{top} > -500 && {top} < 1000")


def test_identities_sort_by_their_column_heads(browser: Browser, page: str) -> None:
    browser.open(page)
    cells = ("[...document.querySelectorAll('.identities tbody tr')]"
             ".map(r => r.children[2].dataset.value).map(Number)")
    browser.run("document.querySelectorAll('.identities thead button')[1].click()")
    assert browser.js(cells) == sorted(browser.js(cells))
    head = "document.querySelectorAll('.identities thead th')[2].getAttribute('aria-sort')"
    assert browser.js(head) == "ascending"
    browser.run("document.querySelectorAll('.identities thead button')[1].click()")
    assert browser.js(cells) == sorted(browser.js(cells), reverse=True)


def test_everything_that_acts_has_a_name_and_can_be_reached(browser: Browser, page: str) -> None:
    """What screen readers and keyboards need, of what can be checked by a script."""
    browser.open(page)
    assert browser.js("document.documentElement.lang") == "en"
    assert browser.js("[...document.images].every(i => i.hasAttribute('alt'))")
    assert browser.js("[...document.querySelectorAll('video')].every(v => v.ariaLabel && "
                      "v.tabIndex === 0)")
    assert browser.js("[...document.querySelectorAll('.tools select, .tools input')]"
                      ".every(f => f.closest('label'))")
    assert browser.js("[...document.querySelectorAll('main svg[role=img]')]"
                      ".every(s => s.getAttribute('aria-label'))")
    ids = browser.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    broken = browser.js("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))"
                        ".filter(h => !h.includes('=') && !document.getElementById(h))")
    assert broken == []


def test_no_width_makes_the_page_scroll_sideways(browser: Browser, page: str) -> None:
    browser.open(page)
    try:
        for width in (360, 700, 1280, 2200):
            browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900,
                             deviceScaleFactor=1, mobile=False)
            assert browser.js("document.documentElement.scrollWidth") <= width
    finally:
        browser.devtools("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(browser: Browser, page: str, scheme: str) -> None:
    """WCAG AA (4.5) for ink, muted text, links and warnings on page and panel."""
    browser.devtools("Emulation.setEmulatedMedia",
                     features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(page)
    script = """
      const probe = document.createElement('i'); document.body.append(probe);
      const light = (name) => {
        probe.style.color = `var(--${name})`;
        const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map(v => v / 255)
          .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const found = {};
      for (const text of ['ink', 'muted', 'accent', 'warn'])
        for (const ground of ['paper', 'panel', 'tint'])
          found[text + ' on ' + ground] = ratio(light(text), light(ground));
      return found;"""
    ratios = browser.run(script)
    assert min(ratios.values()) >= 4.5, ratios
    edges = browser.run(script.replace("['ink', 'muted', 'accent', 'warn']",
                                       "['edge', 's0', 's1', 's2', 's3', 's4', 's5']"))
    assert min(edges.values()) >= 3, edges  # borders of controls, and marks of figures
    dark = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (int(dark[4:].split(",")[0]) < 60) == (scheme == "dark")


def test_no_caption_is_cut_on_a_phone_and_nothing_in_print(browser: Browser, page: str) -> None:
    """A caption is as wide as the view, not as the table that scrolls under it."""
    browser.open(page)
    try:
        for width in (390, 768):
            browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800,
                             deviceScaleFactor=1, mobile=False)
            assert browser.js("[...document.querySelectorAll('caption')].every(c => "
                              "c.offsetWidth <= c.closest('.scroll').clientWidth)")
        # A4 within usual margins.
        browser.devtools("Emulation.setDeviceMetricsOverride", width=718, height=1000,
                         deviceScaleFactor=1, mobile=False)
        browser.devtools("Emulation.setEmulatedMedia", media="print")
        assert browser.js("document.documentElement.scrollWidth") <= 718
        heights = browser.js("[...document.querySelectorAll('.card')].map(c => c.offsetHeight)")
        assert max(heights) < 500  # two on a page
    finally:
        browser.devtools("Emulation.setEmulatedMedia", media="")
        browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_sorting_by_the_difference_of_two_systems(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.choose("sort", "arcsim ahead")
    first, second = _values(browser, "arcsim"), _values(browser, "arcsim", 1)
    gains = [a - b for a, b in zip(first, second, strict=True) if None not in (a, b)]
    assert gains == sorted(gains, reverse=True) and len(gains) >= 5
    assert None in (first[-1], second[-1]), "what has no difference comes last"
    browser.choose("sort", "arcsim behind")
    first, second = _values(browser, "arcsim"), _values(browser, "arcsim", 1)
    again = [a - b for a, b in zip(first, second, strict=True) if None not in (a, b)]
    assert again == gains[::-1]


def test_the_address_keeps_the_view(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.choose("sort", "arcsim worst")
    browser.choose("category", "garment")
    browser.run("document.querySelector('button[name=grid]').click()")
    browser.run("document.querySelector('input[name=run][value=\"1\"]').click()")
    seen, address = browser.js(ORDER), browser.js("location.href")
    assert "sort=arcsim+worst" in address and "category=garment" in address
    browser.run(f"location.href = {address!r}; location.reload()")
    browser.wait("document.documentElement.dataset.ready === '1'")
    browser.wait("document.querySelector('.cards').classList.contains('grid')")
    assert browser.js(ORDER) == seen
    assert not browser.js("document.querySelector('input[name=run][value=\"1\"]').checked")
    sample = seen[0]
    browser.run(f"document.querySelector('#{sample} .link').click()")
    browser.wait("location.hash.includes('category=garment')")
    assert browser.js("location.hash").startswith(f"#{sample}&")


def test_going_back_brings_back_the_view(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("document.querySelector('a.filter').click()")
    browser.wait("document.querySelector('select[name=identity]').value")
    few, who = browser.js(ORDER), browser.js("location.hash")
    browser.run("document.querySelector('nav a').click()")
    browser.wait("location.hash === '#results'")
    assert browser.js(ORDER) == few, "a link to a section filters nothing"
    browser.run("location.reload()")
    browser.wait("document.documentElement.dataset.ready === '1'")
    assert browser.js(ORDER) == few
    browser.run("history.back()")
    browser.wait(f"location.hash === {who!r}")
    assert browser.js(ORDER) == few
    browser.run("history.back()")
    browser.wait(f"{ORDER}.length === 8")
    assert browser.js("document.querySelector('select[name=identity]').value") == ""
    browser.run("history.forward()")
    browser.wait(f"{ORDER}.length === {len(few)}")


def test_a_video_that_is_not_there_says_so(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("const v = document.querySelector('video'); v.src = 'moved.mp4'; v.load();")
    browser.wait("document.querySelector('.shown + .why')")
    browser.console_errors()


def test_long_names_push_nothing_out_of_sight_and_a_phone_has_a_compact_grid(
    browser: Browser, page: str
) -> None:
    browser.open(page)
    browser.run("for (const th of document.querySelectorAll('tbody th[scope=row]'))"
                "th.append('_and_a_name_without_end'.repeat(4));")
    cut = ("[...document.querySelectorAll('#results .scroll, #breakdown .scroll')]"
           ".filter(s => s.scrollWidth > s.clientWidth).length")
    assert browser.js(cut) == 0
    try:
        browser.devtools("Emulation.setDeviceMetricsOverride", width=390, height=800,
                         deviceScaleFactor=1, mobile=False)
        browser.run("document.querySelector('button[name=grid]').click();"
                    "document.querySelector('.card').scrollIntoView();")
        browser.wait("document.querySelector('.shown').offsetHeight > 100")  # laid out
        assert browser.js("document.querySelector('.card').offsetHeight") < 400, "two on a screen"
        assert browser.js("document.querySelector('.references img').getBoundingClientRect().right"
                          " <= document.querySelector('.take').getBoundingClientRect().left")
    finally:
        browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_a_click_on_a_point_a_category_or_a_person_filters(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("document.querySelector('figure[data-points] use.clickable')"
                ".dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    browser.wait("document.querySelector('.card.chosen')")
    keys = browser.js("JSON.parse(document.querySelector('figure[data-points]')"
                      ".dataset.points)[0]")
    assert browser.js("document.querySelector('.card.chosen').id") == keys[0]
    browser.run("document.querySelector('figure[data-filter] text.clickable')"
                ".dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    browser.wait("document.querySelector('select[name=category]').value")
    name = browser.js("document.querySelector('select[name=category]').value")
    assert set(browser.js("[...document.querySelectorAll('.card')].map(c => c.dataset.category)")
               ) == {name}
    browser.run("document.querySelector('button[type=reset]').click()")
    browser.wait(f"{ORDER}.length === 8")
    browser.run("document.querySelector('a.filter').click()")
    browser.wait("document.querySelector('select[name=identity]').value")
    who = browser.js("document.querySelector('a.filter').textContent")
    assert browser.js("document.querySelector('select[name=identity]').value") == who
    assert browser.console_errors() == []


def test_the_view_as_csv_and_the_link_to_the_video(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("window.saved = null; const make = URL.createObjectURL;"
                "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.saved = t; });"
                "return make(blob); };")
    browser.choose("category", "expression")
    browser.run("document.querySelector('button[name=csv]').click()")
    browser.wait("window.saved")
    rows = browser.js("window.saved").splitlines()
    assert rows[0].startswith("sample,split,category,identities,system,")
    count = len(browser.js(ORDER))
    assert len(rows) - 1 == 2 * count, "one row for each video, also of one that failed"
    assert all(",expression," in row for row in rows[1:])
    assert browser.js("document.querySelector('.file a').getAttribute('href')").endswith(
        "/video.mp4")
