"""The audit's page: what it says, what it leaves out, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import inspect
import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.audio.io import write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.audit.corpus_checks import CORPUS_CHECKS, CORPUS_LIMITS
from speechtune.corpus.audit.engine import audit
from speechtune.corpus.audit.policy import Policy, limit
from speechtune.report.audit_charts import Limit, histogram, limits_in_view
from speechtune.report.audit_examples import value_words, visible
from speechtune.report.audit_report import EXAMPLES, AuditReport, write_audit_report
from speechtune.report.audit_sections import measure_limits, share_words
from speechtune.report.spectrogram import BANDS, log_mel_db, mel_filters, spectrogram_uri

RATE_HZ = 16_000
HOSTILE = '<script>document.title="hacked"</script> & "quotes" 🎈'
HEBREW = "הילד הלך למכולת\u202e לקנות חלב"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def write_corpus(root: Path) -> Path:
    """Twelve clips: noise of 0.4 to 3 s, one silent, one missing, one copy in the other split, hostile texts."""
    (root / "audio").mkdir(parents=True)
    rng = np.random.default_rng(1)
    texts = [HOSTILE, HEBREW, *(f"words of the sentence number {word}" for word in "abcdefghij")]
    rows = []
    for number, text in enumerate(texts):
        name = f"audio/{number:02}.wav"
        seconds = 0.4 if number == 2 else 3.0
        samples = 0.2 * rng.standard_normal(int(seconds * RATE_HZ)) * (number != 3)
        if number == 11:
            samples = 0.2 * np.random.default_rng(1).standard_normal(int(3.0 * RATE_HZ))
        if number != 4:
            write_audio(root / name, samples.astype(np.float32))
        rows.append(
            {
                "utterance_id": f"u{number:02}", "file_name": name, "text": text, "duration_s": seconds,
                "speaker_id": f"s{number % 4}", "language": "en", "split": "dev" if number > 8 else "train",
                "age": ("6", "7", "10")[number % 3], "gender": "fm"[number % 2],
            }
        )  # fmt: skip
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("audited") / "corpus <1>")


@pytest.fixture(scope="module")
def audited(corpus: Path) -> Path:
    for module in ("duckdb", "pyarrow"):
        pytest.importorskip(module, reason=f"{module} is not installed (extra: audit)")
    return audit(corpus, corpus.parent / "audit", workers=1).out


@pytest.fixture(scope="module")
def report(corpus: Path, audited: Path) -> AuditReport:
    return write_audit_report(corpus, audited)


@pytest.fixture(scope="module")
def html(report: AuditReport) -> str:
    return report.page.read_text(encoding="utf-8")


def test_every_problem_is_on_the_page_in_its_order_with_its_numbers(html: str, audited: Path) -> None:
    summary = json.loads((audited / "audit.json").read_text(encoding="utf-8"))
    articles = re.findall(r'<article class="problem".*?</article>', html, re.S)
    assert [re.search(r"<code[^>]*>(\w+)</code>", one)[1] for one in articles] == [  # type: ignore[index]
        one["check"] for one in summary["problems"]
    ]
    for article, one in zip(articles, summary["problems"], strict=True):
        assert one["severity"] in article
        assert article.count("<h4>") == min(EXAMPLES, len(one.get("examples", one["utterance_ids"])))
    assert {"audio_missing", "silent", "speaker_leakage"} <= {one["check"] for one in summary["problems"]}
    assert summary["verdict"]["sentence"] in html


def test_nothing_is_loaded_and_text_is_escaped(html: str) -> None:
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "<script>document" not in html
    assert "&lt;script&gt;document.title=&#34;hacked&#34;&lt;/script&gt; &amp; &#34;quotes&#34; 🎈" in html
    assert "\u202e" not in html
    assert "U+202E" in html


def test_page_is_the_same_every_time(html: str, corpus: Path, audited: Path, tmp_path: Path) -> None:
    write_audit_report(corpus, audited, tmp_path / "again.html")
    again = (tmp_path / "again.html").read_text(encoding="utf-8")
    # libogg numbers each stream at random, so the sounds differ in a few bytes.
    one, other = (re.sub(r'"data:audio/[^"]*"', '""', page) for page in (html, again))
    assert one == other


def test_budget_leaves_out_and_says_so(report: AuditReport, corpus: Path, audited: Path, tmp_path: Path) -> None:
    assert report.playable + report.unreadable == report.examples
    assert report.unreadable >= 1
    small = write_audit_report(corpus, audited, tmp_path / "small.html", max_media_bytes=40_000)
    text = small.page.read_text(encoding="utf-8")
    uris = re.findall(r'"(data:(?:audio|image)/[^"]+)"', text)
    assert 0 < sum(map(len, uris)) <= 40_000
    assert text.count("<audio") == small.playable < report.playable
    assert small.over_budget > 0
    assert f"{small.over_budget} are shown without audio" in text
    none = write_audit_report(corpus, audited, tmp_path / "none.html", examples=0)
    assert none.examples == 0
    assert "<audio" not in none.page.read_text(encoding="utf-8")


def test_audit_that_is_not_there_or_does_not_fit(corpus: Path, audited: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished audit"):
        write_audit_report(corpus, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(audited, other, ignore=shutil.ignore_patterns("*.sqlite"))
    summary = json.loads((other / "audit.json").read_text(encoding="utf-8"))
    (other / "audit.json").write_text(json.dumps({**summary, "audit_sha256": "0"}), encoding="utf-8")
    with pytest.raises(InputError, match="not the table"):
        write_audit_report(corpus, other)
    policy = {**summary["policy"], "nonsense": 1}
    (other / "audit.json").write_text(json.dumps({**summary, "policy": policy}), encoding="utf-8")
    with pytest.raises(InputError, match="another version"):
        write_audit_report(corpus, other)


def test_leakage_and_duplicates_are_counted(html: str) -> None:
    part = html.split('id="leakage"')[1].split("</section>")[0]
    cells = re.findall(r"<td>([^<]+)</td>", part)
    assert cells[0] == "3"  # speakers 1, 2 and 3 of utterances 9 to 11 are all in train
    assert cells[1] == "\u2013"  # sessions are not known
    assert cells[2] == "1"  # utterance 11 is a copy of 0
    assert "Identical audio: 1 group, 2 utterances" in html


def test_limits_of_the_checks_exist() -> None:
    assert set(CORPUS_LIMITS) <= {check.name for check in CORPUS_CHECKS}
    for keys in CORPUS_LIMITS.values():
        for key in keys:
            assert limit(Policy(), key) > 0
    policy = Policy.model_validate({"snr": {"warn_below_db": 11.5}})
    assert Limit(11.5, "warning", False) in measure_limits(policy)["snr_db"]
    assert Limit(30.0, "error", True) in measure_limits(policy)["duration_s"]
    assert "words" not in measure_limits(policy)


def test_a_check_of_the_corpus_names_every_limit_that_it_judges_by() -> None:
    name_of_a_limit = r"\b[a-z_]+_(?:above|below|min)_[a-z]+\b|\b[a-z_]+_below\b"
    for check in CORPUS_CHECKS:
        used = set(re.findall(name_of_a_limit, inspect.getsource(check.find)))
        named = {key.split(".")[1] for key in CORPUS_LIMITS.get(check.name, ())}
        assert named <= used, check.name
        if not check.name.endswith(("_dominance", "_imbalance")):  # one finder for all of them
            assert named == used, check.name


def test_histogram_draws_what_is_there() -> None:
    edges, counts = list(range(11)), [0, 0, 5, 10, 0, 1, 0, 0, 0, 0]
    limits = [Limit(2.5, "warning", False), Limit(40, "error", True)]
    low, high, near, far = limits_in_view(edges, counts, limits)
    assert (low, high) == (2, 6)
    assert near == limits[:1]
    assert far == limits[1:]
    svg = histogram(edges, [("all", counts), ("dev", counts)], limits, "s", 'a "chart"')
    heights = [float(one) for one in re.findall(r'class="bar"[^>]* height="([\d.]+)"', svg)]
    assert len(heights) == 6
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[2] >= 1.5
    assert "warning below 2.5\u00a0s" in svg
    assert "&quot;chart&quot;" in svg


def test_log_mel_finds_a_tone() -> None:
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    samples = np.where(time_s < 1, 0.0, 0.5 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.float32)
    level_db = log_mel_db(samples)
    assert level_db.shape == (BANDS, 200)
    loudest = np.argmax(level_db[:, 120:180], axis=0)
    centre_mel = 2595 * np.log10(1 + 8000 / 700) * (loudest + 1) / (BANDS + 1)
    assert np.abs(700 * (10 ** (centre_mel / 2595) - 1) - 1000).max() < 60
    assert level_db[:, 120:180].max() - level_db[:, :90].max() > 60
    assert log_mel_db(np.zeros(RATE_HZ * 40, np.float32)).shape[1] <= 240
    assert np.allclose(mel_filters().sum(axis=1), 1)


def test_picture_is_dark_where_it_is_loud() -> None:
    samples = np.concatenate([np.zeros(RATE_HZ), np.random.default_rng(0).standard_normal(RATE_HZ)]).astype(np.float32)
    pixels = decode_png(base64.b64decode(spectrogram_uri(samples).split(",")[1]))
    assert pixels.shape == (BANDS, 200)
    assert pixels[:, :90].min() == 255
    assert pixels[:, 110:].mean() < 60
    assert decode_png(base64.b64decode(spectrogram_uri(np.zeros(1, np.float32)).split(",")[1])).min() == 255


def decode_png(data: bytes) -> np.ndarray[Any, Any]:
    """Pixels of an 8-bit grey PNG without filters."""
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    length = struct.unpack(">I", data[start - 4 : start])[0]
    raw = zlib.decompress(data[start + 4 : start + 4 + length])
    return np.frombuffer(raw, np.uint8).reshape(height, width + 1)[:, 1:]


def test_words() -> None:
    assert share_words(1, 100_000) == "<\u00a00.1\u00a0%"
    assert share_words(99_999, 100_000) == ">\u00a099.9\u00a0%"
    assert share_words(1, 4) == "25.0\u00a0%"
    assert value_words("speech_frac", 0.0123) == ("speech, share of the time", "1.23\u00a0%")
    assert value_words("hum_prominence_db", -3.0) == ("hum prominence", "\u22123\u00a0dB")
    assert str(visible("a\u200bb\u0000")).count("U+") == 2
    assert visible("👨\u200d👩") == "👨\u200d👩"
    assert "1 more characters" in visible("x" * 401)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_page_in_a_browser(report: AuditReport, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, scheme in ((1400, "light"), (400, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.set_default_timeout(120_000)
            complaints: list[str] = []
            requests: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))  # noqa: B023
            page.on("pageerror", lambda error: complaints.append(str(error)))  # noqa: B023
            page.on("request", lambda request: requests.append(request.url))  # noqa: B023
            page.goto(report.page.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            page.wait_for_function("[...document.querySelectorAll('audio')].every((one) => one.duration > 0.3)")
            assert page.evaluate("document.querySelector('audio').play().then(() => true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(OVERLAPS) == []
            images = page.evaluate("[...document.querySelectorAll('img')].map((one) => one.naturalHeight)")
            assert set(images) == {BANDS}
            assert complaints == []
            assert [url for url in requests if not url.startswith("data:")] == [report.page.as_uri()]
            assert page.title() == "corpus <1> \u2013 speechtune audit"
            page.close()
        browser.close()


OVERLAPS = """[...document.querySelectorAll("svg")].flatMap((svg) => {
  const boxes = [...svg.querySelectorAll("text")].map((one) => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], place) => boxes.slice(0, place).filter(([, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4)
    .map(([other]) => `${name} | ${other}`));
})"""
