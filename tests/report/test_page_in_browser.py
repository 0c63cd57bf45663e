"""The page in a real browser: nothing is loaded, nothing is logged, the recordings play, it fits a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, needs_chromium
from report_fixtures import HOSTILE_TEXT, MakeRun

from speechtune.report.run_report import write_report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def path(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_report(make_run(folder), folder / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_quiet_and_fits(browser: Any, path: Path, scheme: str, width: int, tmp_path: Path) -> None:
    size = {"width": width, "height": 900}
    with Visit(browser, path, viewport=size, color_scheme=scheme) as visit:
        visit.page.wait_for_load_state("load")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        back = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = sum(int(part) for part in back.removeprefix("rgb(").removesuffix(")").split(",")) < 200
        assert dark == (scheme == "dark")
        assert visit.page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]


def test_recordings_have_a_length(browser: Any, path: Path) -> None:
    with Visit(browser, path) as visit:
        visit.page.wait_for_function("[...document.querySelectorAll('audio')].every((a) => a.duration > 0.4)")
        lengths = visit.page.evaluate("[...document.querySelectorAll('audio')].map((a) => a.duration)")
        assert lengths
        assert max(lengths) < 2.1
        stated = visit.page.locator("#utterances .facts").all_inner_texts()
        for length, facts in zip(lengths, stated, strict=True):
            assert float(facts.rsplit("length", 1)[1].split("\u00a0")[0]) == pytest.approx(length, abs=0.06)
        assert visit.page.evaluate("document.querySelector('audio').play().then(() => true)")


def test_hostile_text_is_shown_and_not_run(browser: Any, path: Path) -> None:
    with Visit(browser, path) as visit:
        assert visit.page.title() == "run <1> \u2013 speechtune run"
        assert visit.page.get_by_text(HOSTILE_TEXT, exact=True).count() == 1
        assert visit.page.locator("img").count() == 0


def test_policy_stops_scripts_and_requests(browser: Any, path: Path, tmp_path: Path) -> None:
    html = path.read_text(encoding="utf-8")
    attack = "<script>document.title = 'hacked'</script><img src='http://example.invalid/x.png' onerror='hacked()'>"
    attacked = tmp_path / "attacked.html"
    attacked.write_text(html.replace("<main>", f"<main>{attack}"), encoding="utf-8")
    with Visit(browser, attacked) as visit:
        assert visit.page.title() == "run <1> \u2013 speechtune run"
        assert any("Content Security Policy" in text for text in visit.complaints)


def test_tables_sort_by_keyboard_and_by_number(browser: Any, path: Path) -> None:
    with Visit(browser, path) as visit:
        button = visit.page.get_by_role("region", name="dev by age").get_by_role("button", name="words", exact=True)
        cells = visit.page.get_by_role("region", name="dev by age").locator("tbody tr td:nth-child(3)")
        assert cells.count() == 5
        button.focus()
        visit.page.keyboard.press("Enter")
        numbers = [int(text) for text in cells.all_inner_texts()]
        assert numbers == sorted(numbers)
        visit.page.keyboard.press("Enter")
        assert [int(text) for text in cells.all_inner_texts()] == numbers[::-1]
        wer = visit.page.locator("#scores table").first
        wer.get_by_role("button", name="WER").click()
        shown = wer.locator("tbody tr td:nth-child(4)").all_inner_texts()
        rates = [float(text.split("\u00a0")[0]) for text in shown if text != "\u2013"]
        assert rates == sorted(rates)
        assert shown[-4:] == ["\u2013"] * 4


def test_page_is_complete_without_scripts(browser: Any, path: Path) -> None:
    with Visit(browser, path, java_script_enabled=False) as visit:
        text = visit.page.locator("main").inner_text()
        for heading in ("Result", "Scores before and after", "Training", "Slices", "Most changed", "How it was made"):
            assert heading in text
        assert visit.page.locator("audio").count() > 10
        assert visit.page.locator("svg").count() >= 6


def test_hebrew_runs_from_the_right(browser: Any, path: Path) -> None:
    with Visit(browser, path) as visit:
        line = visit.page.get_by_text("הילד הלך למכולת לקנות חלב", exact=True).first
        assert line.evaluate("(one) => one.matches(':dir(rtl)')")
        diff = visit.page.locator("dd p", has_text="למכולת לקנות").nth(1)
        assert diff.evaluate("(one) => one.matches(':dir(rtl)')")
        assert visit.page.get_by_role("heading", level=1).evaluate("(one) => one.matches(':dir(ltr)')")


def test_page_fits_on_paper(browser: Any, path: Path) -> None:
    with Visit(browser, path, viewport={"width": 700, "height": 1000}, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 700  # A4 with margins of 12 mm
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert visit.page.get_by_label("Recipe", exact=True).evaluate("(one) => one.checkVisibility()")
