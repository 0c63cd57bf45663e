"""The page of a comparison in a real browser: it fits, is quiet, plays, and opens whatever the size of the set."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Visit, needs_chromium
from compare_fixtures import compared, large_corpus, small_corpus, system
from report_fixtures import HEBREW, HOSTILE_TEXT

from speechtune.report.compare_report import Extra, write_compare_report
from speechtune.scoring.comparison import Cost

pytestmark = needs_chromium

UTTERANCES = 100_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten utterances, three systems, one with a long name."""
    folder = tmp_path_factory.mktemp("small")
    corpus = small_corpus(folder / "corpus")
    systems = [
        system(corpus, "before", 0.9),
        system(corpus, "after <b>", 0.05, Cost(parameters=37_800_000, decode_s=1.0, audio_s=10.0, device="cpu")),
        system(corpus, "a system with_an_exceedingly_long_name_that_never_ends", 0.5),
    ]
    extra = Extra(anchor="more", title="More", text="A table.", head=["part", "x"], rows=[["noisy", "1.0"]])
    return write_compare_report(compared(corpus, systems), folder / "page.html", lead=["A lead."], extras=[extra])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred thousand utterances."""
    corpus = large_corpus(UTTERANCES)
    found = compared(corpus, [system(corpus, "a", 0.3), system(corpus, "b", 0.25)])
    return write_compare_report(found, tmp_path_factory.mktemp("large") / "page.html")


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten systems."""
    folder = tmp_path_factory.mktemp("ten")
    corpus = small_corpus(folder / "corpus", 30)
    sure = (-0.05, -0.1, -0.3)
    systems = [system(corpus, f"system {number}", 0.08 * number, log_probs=sure) for number in range(10)]
    return write_compare_report(compared(corpus, systems, examples=2), folder / "page.html")


def _lightness(png: bytes) -> np.ndarray:
    """A screenshot as grey values 0 to 255, shape [height, width]."""
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    return np.asarray(image.open(io.BytesIO(png)).convert("L"), dtype=np.float64)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["small", "ten", "large"])
def test_page_is_quiet_and_fits(
    browser: Any, name: str, scheme: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name)
    size = {"width": width, "height": 900}
    with Visit(browser, path, viewport=size, color_scheme=scheme) as visit:
        visit.page.wait_for_load_state("load")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        back = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = sum(int(part) for part in back.removeprefix("rgb(").removesuffix(")").split(",")) < 200
        assert dark == (scheme == "dark")
        shot = _lightness(visit.page.screenshot(path=tmp_path / "page.png", full_page=True))
        paper = np.median(shot)
        assert (paper < 60) if scheme == "dark" else (paper > 200)
        written = (np.abs(shot - paper) > 60).mean(axis=1) > 0
        assert shot.shape[1] == width and 0.2 < written.mean() < 0.9  # lines of text all the way down
        assert np.diff(np.flatnonzero(written)).max() < 400  # and no hole in the page
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]
        text = visit.page.locator("main").inner_text()
        for heading in ("Result", "Scores", "Slices", "Utterances won and lost", "How to read the numbers"):
            assert heading in text
        assert ("Every pair" in text) == (name != "large")


def test_marks_differ_by_more_than_colour(browser: Any, large: Path) -> None:
    with Visit(browser, large) as visit:
        mark = visit.page.locator("#scores .mark-better")
        assert mark.count() == 1
        assert mark.inner_text().startswith("▼") and "fewer errors" in (mark.text_content() or "")
        contrast = visit.page.evaluate(
            "(() => { const c = (e) => getComputedStyle(e).color; return c(document.querySelector('.mark-better')) !=="
            " c(document.body) })()"
        )
        assert contrast


def test_recordings_play_and_each_is_there_once(browser: Any, small: Path) -> None:
    with Visit(browser, small) as visit:
        visit.page.wait_for_function("[...document.querySelectorAll('audio')].every((a) => a.duration > 0.4)")
        sources = visit.page.evaluate("[...document.querySelectorAll('audio')].map((a) => a.src)")
        labels = visit.page.evaluate("[...document.querySelectorAll('audio')].map((a) => a.ariaLabel)")
        assert len(sources) >= 8
        assert len(set(labels)) == len(labels)
        assert visit.page.evaluate("document.querySelector('audio').play().then(() => true)")
        links = visit.page.locator("#utterances a")
        assert links.count() > 0
        for number in range(links.count()):
            target = (links.nth(number).get_attribute("href") or "").removeprefix("#")
            assert visit.page.locator(f"[id='{target}'] audio").count() == 1


def test_hebrew_runs_from_the_right_and_hostile_text_is_only_text(browser: Any, small: Path) -> None:
    with Visit(browser, small) as visit:
        line = visit.page.get_by_text(HEBREW, exact=True).first
        assert line.evaluate("(one) => one.matches(':dir(rtl)')")
        heard = line.locator("xpath=ancestor::li").locator("dd p")
        assert all(heard.nth(k).evaluate("(one) => one.matches(':dir(rtl)')") for k in range(heard.count()))
        box, words = line.bounding_box(), visit.page.locator("#utterances dd").first.bounding_box()
        assert box and words and box["width"] <= words["width"]
        assert line.evaluate("(one) => getComputedStyle(one).textAlign") == "start"
        shot = _lightness(line.screenshot())
        inked = np.flatnonzero((np.abs(shot - np.median(shot)) > 60).any(axis=0))
        assert inked.max() > 0.98 * shot.shape[1] and inked.mean() > 0.5 * shot.shape[1]  # the line ends at the right
        assert visit.page.get_by_text(HOSTILE_TEXT, exact=True).count() >= 1
        assert visit.page.locator("img").count() == 0
        assert "hacked" not in visit.page.title()
        assert visit.page.locator("#pairs").get_by_text("after <b>", exact=True).count() == 2


def test_hundred_thousand_utterances_are_counted_and_the_page_stays_small(browser: Any, large: Path) -> None:
    assert large.stat().st_size < 1_000_000
    began_s = time.monotonic()
    with Visit(browser, large) as visit:
        visit.page.wait_for_load_state("load")
        assert time.monotonic() - began_s < 20
        bands = visit.page.locator(".bands tbody td").all_inner_texts()
        assert sum(int(text.replace("\u202f", "")) for text in bands) == UTTERANCES
        assert visit.page.locator(".utterances > li").count() == 24
        assert "100\u202f000 utterances" in visit.page.locator("#utterances").inner_text()
        ages = visit.page.get_by_role("region", name="By age").locator("tbody tr td:nth-child(2)").all_inner_texts()
        assert sum(int(text.replace("\u202f", "")) for text in ages) == UTTERANCES


def test_the_largest_difference_comes_first(browser: Any, large: Path) -> None:
    with Visit(browser, large) as visit:
        changes = visit.page.locator("#utterances ol").first.locator(".change").all_inner_texts()
        amounts = [int(text.split()[0].replace("\u2212", "-")) for text in changes]
        assert amounts == sorted(amounts) and amounts[0] < 0


def test_tables_sort(browser: Any, ten: Path) -> None:
    with Visit(browser, ten) as visit:
        table = visit.page.locator("#scores table")
        table.get_by_role("button", name="WER").click()
        rates = [float(text.split("\u00a0")[0]) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]
        assert rates == sorted(rates) and len(rates) == 10
        assert visit.page.locator("#pairs tbody tr").count() == 10


def test_confidences_have_a_plot_for_every_system(browser: Any, small: Path, ten: Path) -> None:
    with Visit(browser, ten, viewport={"width": 1280, "height": 900}) as visit:
        assert visit.page.locator("#confidences svg.curve").count() == 10
        assert visit.page.locator("#confidences tbody tr").count() == 10
        # The others are as sure and more often wrong.
        assert "system 0" in visit.page.locator("#confidences > p").first.inner_text()
        plot = visit.page.locator("#confidences svg").first
        box = plot.bounding_box()
        dots = plot.locator("circle")
        assert box and dots.count() >= 1
        for number in range(dots.count()):
            dot = dots.nth(number).bounding_box()
            assert dot and box["x"] <= dot["x"] <= box["x"] + box["width"]
            assert box["y"] - 1 <= dot["y"] <= box["y"] + box["height"]
    with Visit(browser, small) as visit:
        assert visit.page.locator("#confidences").count() == 0


def test_page_fits_on_paper(browser: Any, small: Path) -> None:
    with Visit(browser, small, viewport={"width": 700, "height": 1000}, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
