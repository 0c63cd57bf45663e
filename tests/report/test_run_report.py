"""The page says what the files say, holds everything it needs, and does nothing that a text tells it to."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from report_fixtures import HEBREW, HOSTILE_ID, HOSTILE_TEXT, MakeRun

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.transcript import read_transcripts
from speechtune.report import wording
from speechtune.report.audio_clips import ClipShelf, data_uri, encode_opus
from speechtune.report.charts import Curve, Dot, DotRow, dot_whisker, line_chart, nice_ticks
from speechtune.report.reading import Bounds, read_run
from speechtune.report.run_report import write_report
from speechtune.report.utterances import Piece, pieces
from speechtune.scoring.normalisers import get_normaliser

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags with attributes, the text of every element by path, and tables as rows of cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.text.append(data)
        if {"td", "th"} & set(self.stack):
            self.tables[-1][-1][-1] += data

    def plain(self) -> str:
        return " ".join("".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def table(self, first: str, second: str) -> list[list[str]]:
        """The rows of the table whose header starts with two words."""
        tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]
        return next(table[1:] for table in tables if table[0][:2] == [first, second])


@pytest.fixture(scope="module")
def run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run whose files a test may change; the corpora stay where they are."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def texts(run: Path, system: str, context: str) -> dict[str, str]:
    path = run / f"transcripts/dev.{system}.{context}.jsonl"
    return {one.utterance_id: one.text for one in read_transcripts(path)}


def jiwer_rate(run: Path, system: str, context: str) -> float:
    """WER of the dev set by another program, on the same normalised texts, empty references included as insertions."""
    normalise = get_normaliser("unicode")
    heard = texts(run, system, context)
    corpus = Corpus.load(run.parent / "children").split("dev")
    pairs = [(normalise(one.text), normalise(heard[one.utterance_id])) for one in corpus]
    said = [pair for pair in pairs if pair[0]]
    result = jiwer.process_words([ref for ref, _ in said], [hyp for _, hyp in said])
    errors = result.substitutions + result.deletions + result.insertions
    errors += sum(len(hyp.split()) for ref, hyp in pairs if not ref)
    return errors / sum(len(ref.split()) for ref, _ in said)


def shown(rate: float) -> str:
    return f"{100 * rate:.1f}\u00a0%"


def test_headline_gives_rates_interval_and_counts(run: Path, page: Page) -> None:
    scores = json.loads((run / "scores.json").read_text())
    fit = next(c for c in scores["comparisons"] if (c["set"], c["context_after"]) == ("dev", "fit"))
    bounds = fit["difference"]["interval"]
    before, after = jiwer_rate(run, "before", "full"), jiwer_rate(run, "after", "fit")
    points = f"{100 * (after - before):+.1f}".replace("-", "\u2212")
    low, high = (f"{100 * bounds[end]:+.1f}".replace("-", "\u2212") for end in ("low", "high"))
    sentence = (
        f"On dev the word error rate went from {shown(before)} to {shown(after)}: {points} points "
        f"(95 % interval {low} to {high}), {shown(1 - after / before)} fewer errors."
    )
    text = page.plain()
    assert " ".join(sentence.split()) in text
    assert "60 utterances, 399 words, 10 known speakers, the interval resamples 10 speakers" in text
    assert "This set also chose which weights were kept" in text
    assert "On adults the word error rate went from" in text
    assert "no reference words, so there is no word error rate" in text


def test_score_table_equals_an_independent_count(run: Path, page: Page) -> None:
    rows = {tuple(row[:3]): row for row in page.table("Set", "Context")}
    assert len(rows) == 12
    assert list(rows)[:3] == [("dev", "fit", "before"), ("dev", "fit", "after"), ("dev", "full", "before")]
    for system in ("before", "after"):
        for context in ("fit", "full"):
            assert rows["dev", context, system][3] == " ".join(shown(jiwer_rate(run, system, context)).split())
    assert rows["silence", "fit", "after"][3:7] == ["\u2013", "\u2013", "\u2013", "\u2013"]
    kept = json.loads((run / "scores.json").read_text())["measurements"][0]
    row = rows[kept["set"], kept["context"], kept["system"]]
    words = kept["score"]["words"]
    assert row[7:12] == [
        str(words[name]) for name in ("errors", "substitutions", "deletions", "insertions", "reference_length")
    ]


def test_slices_add_up_to_the_set(page: Page) -> None:
    rows = page.table("age", "utterances")
    assert [row[0] for row in rows] == ["6", "7", "8", "9", "10"]
    assert sum(int(row[1]) for row in rows) == 60
    assert sum(int(row[2]) for row in rows) == 399


def test_terms_are_listed_with_what_they_were_heard_as(run: Path, page: Page) -> None:
    normalise = get_normaliser("unicode")
    corpus = Corpus.load(run.parent / "children").split("dev")
    heard = texts(run, "after", "fit")
    said = hits = 0
    for one in corpus:
        there = Counter(normalise(one.text).split())["makolet"]
        said, hits = said + there, hits + min(there, Counter(normalise(heard[one.utterance_id]).split())["makolet"])
    row = next(row for row in page.table("Term", "said") if row[0] == "makolet")
    assert row[1] == str(said)
    assert row[3] == f"{100 * hits / said:.1f} %"
    assert "\u00d7" in row[6]
    assert "No term is said or recognised in: adults, silence" in page.plain()


def test_most_changed_utterances_are_the_most_changed(run: Path, page: Page) -> None:
    normalise = get_normaliser("unicode")
    corpus = Corpus.load(run.parent / "children").split("dev")

    def errors(system: str, context: str) -> dict[str, int]:
        heard = texts(run, system, context)
        found = {}
        for one in corpus:
            ref, hyp = normalise(one.text).split(), normalise(heard[one.utterance_id]).split()
            row = list(range(len(hyp) + 1))  # the textbook recurrence
            for i, word in enumerate(ref, start=1):
                last, row[0] = row[0], i
                for j, other in enumerate(hyp, start=1):
                    last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
            found[one.utterance_id] = row[-1]
        return found

    was, now = errors("before", "full"), errors("after", "fit")
    changes = {name: now[name] - was[name] for name in was}
    better = sorted((change, name) for name, change in changes.items() if change < 0)
    worse = sorted((-change, name) for name, change in changes.items() if change > 0)
    expected = [name for _, name in better[:15]] + [name for _, name in worse[:15]]
    headings = [attrs["aria-label"] for attrs in page.named("audio")]
    assert headings == [f"Recording of utterance {name}" for name in expected]
    assert f"{len(better)} have fewer errors after training, {len(worse)} have more" in page.plain()


def test_recordings_decode_to_the_tone_that_was_recorded(page: Page) -> None:
    sources = [attrs["src"] or "" for attrs in page.named("audio")]
    assert sources
    for source in sources[:5]:
        head, _, data = source.partition(",")
        assert head == "data:audio/ogg;codecs=opus;base64"
        with soundfile.SoundFile(io.BytesIO(base64.b64decode(data, validate=True))) as file:
            assert (file.format, file.subtype, file.channels) == ("OGG", "OPUS", 1)
            samples = file.read()
            spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
            assert np.argmax(spectrum) * file.samplerate / len(samples) == pytest.approx(440, abs=3)
    assert all("controls" in attrs for attrs in page.named("audio"))


def test_page_loads_nothing_and_every_text_stays_text(run: Path, page: Page) -> None:
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "xlink:href", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") or name == "style" for name in attrs)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html
    assert not page.named("img")
    assert not page.named("b") or all(not attrs for attrs in page.named("b"))
    assert len(page.named("script")) == 1
    assert HOSTILE_ID in page.plain()
    assert " ".join(HOSTILE_TEXT.split()) in page.plain()
    policy = next(a["content"] or "" for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_page_is_structured_for_assistive_technology(page: Page) -> None:
    assert page.stack == []
    levels = [int(tag[1]) for tag, _ in page.tags if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in page.named("svg"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.named("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = [attrs.get("aria-labelledby") for _, attrs in page.tags if attrs.get("aria-labelledby")]
    referred += [(attrs["href"] or "")[1:] for attrs in page.named("a")]
    assert set(referred) <= set(ids)
    assert page.named("html")[0]["lang"] == "en"


def test_hebrew_chooses_its_own_direction(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    assert f'<p dir="auto">{HEBREW}</p>' in html
    assert "<bdi>עברית 1</bdi>" in html


def test_how_it_was_made_is_all_there(run: Path, page: Page) -> None:
    text = page.plain()
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["data"]["fingerprint"] in text
    assert "2 utterances: is too long" in text
    assert "3 utterances: no text" in text
    assert "20 labels decode back to their texts" in text
    assert "those of step 40" in text
    assert "jitter_s: 1.0" in text
    assert f"python {provenance['versions']['python']}" in text


def test_page_is_the_same_every_time(run: Path, tmp_path: Path) -> None:
    pages = [write_report(run, tmp_path / name).read_text(encoding="utf-8") for name in ("a.html", "b.html")]
    without_audio = [re.sub(r"base64,[^\"]*", "", page) for page in pages]  # an Ogg stream's serial number is random
    assert without_audio[0] == without_audio[1]


def test_missing_audio_and_a_moved_corpus_are_said(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "children/audio/003.wav").unlink()
    partly = Page(write_report(run).read_text(encoding="utf-8"))
    assert "1 could not be read" in partly.plain()
    assert "No player: audio not readable." in partly.plain()
    (tmp_path / "children").rename(tmp_path / "elsewhere")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert not page.named("audio")
    assert "Utterances are not shown and cannot be played: the corpus could not be read" in page.plain()
    assert len(page.table("Set", "Context")) == 12


def test_a_changed_corpus_is_not_mixed_with_old_scores(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    corpus = Corpus.load(tmp_path / "children")
    corpus.utterances[5].text = "entirely other words now"
    corpus.save()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert not page.named("audio")
    assert "has changed since this run was measured" in page.plain()
    assert "the corpus has changed since the run was started" in page.plain()


def test_what_is_not_a_finished_run_is_refused(own_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        write_report(tmp_path)
    (own_run / "scores.json").write_text('{"measurements": [{"set": "dev"}], "comparisons": []}')
    with pytest.raises(InputError, match="is damaged"):
        write_report(own_run)
    (own_run / "scores.json").unlink()
    with pytest.raises(InputError, match=r"is not finished \(no scores.json\)"):
        write_report(own_run)


def test_run_with_the_bare_minimum_of_files(own_run: Path, tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "provenance.json", "preflight.json", "run.json"):
        (own_run / name).unlink()
    text = Page(write_report(own_run, tmp_path / "page.html").read_text(encoding="utf-8")).plain()
    assert "No training values were logged." in text
    assert "the preflight was switched off or left no record" in text


def test_values_that_are_no_numbers_break_the_line(own_run: Path) -> None:
    rows = (own_run / "metrics.jsonl").read_text().splitlines()
    broken = json.loads(rows[4]) | {"loss": float("nan")}
    (own_run / "metrics.jsonl").write_text("\n".join([*rows[:4], json.dumps(broken), *rows[5:]]))
    page = Page(write_report(own_run).read_text(encoding="utf-8"))
    assert "1 logged values are infinite or not a number" in page.plain()
    assert (
        "nan"
        not in (own_run / "report.html").read_text(encoding="utf-8").lower().split("<svg", 1)[1].split("</svg>")[0]
    )


def test_lone_surrogates_and_control_characters_can_be_written(own_run: Path) -> None:
    scores = json.loads((own_run / "scores.json").read_text())
    scores["measurements"][0]["score"]["notes"] = ["odd \ud800 \x00 \u202e text"]
    (own_run / "scores.json").write_text(json.dumps(scores))
    assert "odd ?" in write_report(own_run).read_text(encoding="utf-8")


def test_a_full_shelf_leaves_clips_out_and_counts_them(run: Path) -> None:
    corpus = Corpus.load(run.parent / "children")
    shelf = ClipShelf(max_bytes=20_000)
    clips = [shelf.clip(corpus, utterance) for utterance in corpus.utterances[:12]]
    embedded = [clip.uri for clip in clips if clip.uri]
    assert sum(map(len, embedded)) == shelf.used_bytes <= 20_000
    assert 0 < len(embedded) == shelf.embedded < 12
    assert shelf.over_budget == 12 - len(embedded)
    assert f"{shelf.over_budget} were left out" in shelf.sentence()


def test_opus_takes_about_three_kilobytes_a_second() -> None:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 16_000 * 8).astype(np.float32)
    encoded = encode_opus(noise)
    assert 2000 < len(encoded) / 8 < 4000
    assert soundfile.info(io.BytesIO(encoded)).duration == pytest.approx(8, abs=0.05)
    assert data_uri(b"abc").endswith(",YWJj")


def test_pieces_give_back_both_texts() -> None:
    found = pieces("a b c d", "a x c d e f")
    assert found == [
        Piece("equal", "a", "a"),
        Piece("substitute", "b", "x"),
        Piece("equal", "c d", "c d"),
        Piece("insert", "", "e f"),
    ]
    assert pieces("a b", "") == [Piece("delete", "a b", "")]
    assert pieces("", "") == []


def test_a_decoder_in_a_loop_is_cut_short() -> None:
    cut = pieces("yes", "yes " + "no " * 200)
    assert [piece.op for piece in cut] == ["equal", "insert", "cut"]
    assert cut[2].said == "188 more words inserted"
    assert len(cut[1].heard.split()) + 188 == 200


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0.37, [0, 0.1, 0.2, 0.3, 0.4]),
        (0, 2.15, [0, 0.5, 1, 1.5, 2, 2.5]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 3e-5, [0, 1e-5, 2e-5, 3e-5]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_charts_place_values_where_they_belong() -> None:
    svg = dot_whisker([DotRow("<set>", "n & m", (Dot(0.5, 0.25, 0.75, True),))], 'a "chart"')
    assert "&lt;set&gt;" in svg
    assert "&quot;chart&quot;" in svg
    assert 'cx="62.50%"' in svg  # the axis ends at 0.8, one tick beyond 1.3 times the estimate
    assert 'x1="31.25%"' in svg
    assert dot_whisker([DotRow("none", "", (Dot(None),))], "") == ""
    curve = line_chart(Curve("loss", [(0.0, 1.0), (1.0, 0.0)], marked=(1.0, "best")), "loss")
    assert 'points="52.0,16.0 346.0,176.0"' in curve
    assert line_chart(Curve("nothing", [(1.0, float("nan"))]), "") == ""


def test_an_interval_far_beyond_the_estimates_ends_in_an_arrow() -> None:
    svg = dot_whisker([DotRow("wide", "", (Dot(0.5, 0.1, 6.0),))], "")
    assert "▸" in svg
    assert "100.00%" in svg
    assert "600" not in svg


def test_numbers_as_words() -> None:
    assert wording.percent(0.20494) == "20.5\u00a0%"
    assert wording.percent(None) == "\u2013"
    assert wording.points(-0.0312) == "\u22123.1"
    assert wording.points(-0.0001) == "0.0"
    assert wording.points_range(Bounds(-0.05, 0.012, 0.95, "speaker", 9)) == "\u22125.0 to +1.2"
    assert wording.relative(0.4, 0.1) == "75.0\u00a0% fewer errors"
    assert wording.relative(0.0, 0.1) is None
    assert wording.number(1234567) == "1\u202f234\u202f567"


def guard(low: float, high: float, difference: float, run: Path) -> str:
    record = read_run(run)
    one = next(row for row in record.comparisons if row.set_name == "adults")
    return wording.headline(
        record, replace(one, difference=difference, interval=Bounds(low, high, 0.95, "speaker", 9)), 9
    ).sentence


def test_guard_sets_are_judged_by_the_whole_interval(run: Path) -> None:
    assert "this guard set got worse" in guard(0.01, 0.05, 0.03, run)
    assert "a worsening of up to 1.5 points is not excluded" in guard(-0.02, 0.015, 0.0, run)
    assert "did not get worse, it improved" in guard(-0.05, -0.01, -0.03, run)
