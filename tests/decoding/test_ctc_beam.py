"""Prefix beam search of CTC models: against every path, against pyctcdecode, and through the commands."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain_kenlm
import pytest
import tiny_ctc
import yaml
from tiny_ctc import spoken

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.lm.arpa import write_arpa
from speechtune.decoding.lm.ctc_words import Lexicon, LmWords, ctc_guide, read_lexicon, words_of
from speechtune.decoding.lm.loading import load_lm
from speechtune.decoding.lm.mixture import Mixture
from speechtune.decoding.lm.model import NgramModel, sentence_log_prob
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.lm.training import train_ngram
from speechtune.decoding.searching import Searcher
from speechtune.models.ctc_search import CtcGuide, Units, beam_search
from speechtune.models.ctc_search_config import CtcSearchConfig
from speechtune.models.family import load_family

Command = Callable[..., subprocess.CompletedProcess[str]]
WIDE = CtcSearchConfig(token_log_prob=-1e9, beam_log_prob=-1e9)
CHARACTERS = ["", " ", "a", "b", "c", "d"]
PIECES = ["", "▁a", "b", "c", "▁d", "▁cd", "d"]
SENTENCES = ("ab cab", "a bad cab", "bad dad", "add a cab", "a dab", "cab cab bad")


def units_of(labels: list[str]) -> Units:
    delimiter = labels.index(" ") if " " in labels else None
    texts = [None if place in (0, delimiter) else label for place, label in enumerate(labels)]
    return Units(texts, 0, delimiter)


def text_of(tokens: list[int], labels: list[str]) -> str:
    return " ".join("".join(labels[one] for one in tokens).replace("▁", " ").split())


def random_log_probs(rng: np.random.Generator, frames: int, size: int, sharpness: float) -> np.ndarray:
    logits = sharpness * rng.standard_normal((frames, size))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.fixture(scope="module")
def model() -> NgramModel:
    return train_ngram([line.split() for line in SENTENCES], 3).model


def all_texts(log_probs: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Log-probability of every text: the sum over every path of frames."""
    total: dict[str, float] = defaultdict(float)
    for path in itertools.product(range(len(labels)), repeat=len(log_probs)):
        tokens = [token for token, _ in itertools.groupby(path) if token]
        total[text_of(tokens, labels)] += math.exp(sum(log_probs[frame, token] for frame, token in enumerate(path)))
    return {text: math.log(share) for text, share in total.items()}


@pytest.mark.parametrize("labels", [CHARACTERS[:5], PIECES[:5], ["", "▁", "a", "▁a"]])
def test_without_pruning_every_text_has_the_sum_over_its_paths(labels: list[str]) -> None:
    log_probs = random_log_probs(np.random.default_rng(3), 5, len(labels), 1.0)
    truth = all_texts(log_probs, labels)
    found = beam_search(log_probs, units_of(labels), 10**6, 10**6, CtcGuide(WIDE))
    assert {text_of(one.tokens, labels): one.log_prob for one in found} == pytest.approx(truth)
    assert len(found) == len(truth)
    assert [one.total for one in found] == sorted((one.total for one in found), reverse=True)


def test_fusion_ranks_by_acoustics_plus_language_model(model: NgramModel) -> None:
    labels = CHARACTERS
    log_probs = random_log_probs(np.random.default_rng(5), 5, len(labels), 1.0)
    scores = LmWords(model, None, str.split, 0.7, 1.1, CtcSearchConfig(unknown_word=-2.0))
    found = beam_search(log_probs, units_of(labels), 10**6, 10**6, CtcGuide(WIDE, scores))
    totals = {}
    for text, log_prob in all_texts(log_probs, labels).items():
        words = text.split()
        unknown = -2.0 * math.log(10) * sum(not model.knows(one) for one in words)
        totals[text] = log_prob + 0.7 * (sentence_log_prob(model, words) + unknown) + 1.1 * len(words)
    assert {text_of(one.tokens, labels): one.total for one in found} == pytest.approx(totals)
    assert text_of(found[0].tokens, labels) == max(totals, key=totals.__getitem__)


def pyctcdecode(
    labels: list[str], arpa: Path | None = None, words: list[str] | None = None, alpha: float = 0.5, beta: float = 1.5
) -> Any:
    package = pytest.importorskip("pyctcdecode", reason="pyctcdecode wants numpy 1: pip install --no-deps it")
    return package.build_ctcdecoder(labels, None if arpa is None else str(arpa), words, alpha, beta)


@pytest.fixture(params=["kenlm", "plain"])
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyctcdecode asks KenLM where it is installed, and always once `plain_kenlm`."""
    if request.param == "kenlm":
        pytest.importorskip("kenlm", reason="KenLM's Python package is not installed")
        return
    for name in ("decoder", "language_model"):
        module = pytest.importorskip(f"pyctcdecode.{name}", reason="pyctcdecode wants numpy 1: pip --no-deps it")
        monkeypatch.setattr(module, "kenlm", plain_kenlm, raising=False)


@pytest.mark.parametrize("labels", [CHARACTERS, PIECES])
@pytest.mark.parametrize("width", [3, 20])
def test_beams_are_those_of_pyctcdecode(labels: list[str], width: int) -> None:
    other = pyctcdecode(labels)
    for seed in range(12):
        log_probs = random_log_probs(np.random.default_rng(seed), 40, len(labels), 2.0)
        ours = beam_search(log_probs, units_of(labels), width, width, CtcGuide(CtcSearchConfig()))
        theirs = other.decode_beams(log_probs, beam_width=width)
        assert [text_of(one.tokens, labels) for one in ours] == [one[0] for one in theirs], seed
        assert [one.log_prob for one in ours] == pytest.approx([one[3] for one in theirs])


@pytest.mark.usefixtures("judge")
@pytest.mark.parametrize("with_lexicon", [True, False])
def test_fused_beams_are_those_of_pyctcdecode(model: NgramModel, tmp_path: Path, with_lexicon: bool) -> None:
    arpa = tmp_path / "lm.arpa"
    write_arpa(model, arpa)
    words = ["a", "ab", "cab", "bad", "dab"] if with_lexicon else None
    other = pyctcdecode(CHARACTERS, arpa, words, 0.6, 1.2)
    lexicon = Lexicon(words if words else words_of(model) or ())  # pyctcdecode reads them from the ARPA file, too
    guide = CtcGuide(CtcSearchConfig(), LmWords(load_lm(str(arpa)), lexicon, str.split, 0.6, 1.2, CtcSearchConfig()))
    for seed in range(15):
        log_probs = random_log_probs(np.random.default_rng([seed, 1]), 40, len(CHARACTERS), 2.0)
        # pyctcdecode charges a text that ends in a space for one more, unknown word: every text ends in a letter
        log_probs[-1] = np.where(np.arange(len(CHARACTERS)) == 2, math.log(0.99), math.log(0.002))
        ours = beam_search(log_probs, units_of(CHARACTERS), 30, 30, guide)
        theirs = other.decode_beams(log_probs, beam_width=30)
        assert [text_of(one.tokens, CHARACTERS) for one in ours] == [one[0] for one in theirs], seed
        assert [one.log_prob for one in ours] == pytest.approx([one[3] for one in theirs])
        assert [one.total for one in ours] == pytest.approx([one[4] for one in theirs], abs=1e-3)


def test_a_strict_lexicon_finds_its_words_only() -> None:
    words = {"ab", "bad", "cab"}
    options = CtcSearchConfig(lexicon="set by hand", lexicon_only=True)
    scores = LmWords(None, Lexicon(words), str.split, 0.3, 0.0, options)
    said = set()
    for seed in range(30):
        log_probs = random_log_probs(np.random.default_rng([seed, 2]), 30, len(CHARACTERS), 3.0)
        for one in beam_search(log_probs, units_of(CHARACTERS), 20, 5, CtcGuide(options, scores)):
            said.update(text_of(one.tokens, CHARACTERS).split())
            assert math.isfinite(one.total)
    assert said == words


def test_a_lexicon_turns_a_likely_nonsense_word_into_a_word() -> None:
    log_probs = np.full((3, len(CHARACTERS)), math.log(0.02))
    for frame, letter in enumerate("cad"):
        log_probs[frame, CHARACTERS.index(letter)] = math.log(0.5)
    log_probs[2, CHARACTERS.index("b")] = math.log(0.4)
    plain = beam_search(log_probs, units_of(CHARACTERS), 20, 1, CtcGuide(CtcSearchConfig()))
    scores = LmWords(None, Lexicon(["cab"]), str.split, 0.3, 0.0, CtcSearchConfig())
    helped = beam_search(log_probs, units_of(CHARACTERS), 20, 1, CtcGuide(CtcSearchConfig(), scores))
    assert [text_of(one[0].tokens, CHARACTERS) for one in (plain, helped)] == ["cad", "cab"]


def test_tokens_that_a_transcript_never_has_are_not_found() -> None:
    units = Units([None, None, "a", "b", None, None], 0, 1)
    log_probs = random_log_probs(np.random.default_rng(0), 20, 6, 2.0)
    log_probs[:, 4] = 0.0
    found = beam_search(log_probs, units, 10, 10, CtcGuide(CtcSearchConfig()))
    assert all(token in (1, 2, 3) for one in found for token in one.tokens)


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctc.make_ctc(tmp_path_factory.mktemp("ctc-beam") / "model", "wav2vec2-group")


@pytest.fixture
def arpa(tmp_path: Path, model: NgramModel) -> Path:
    write_arpa(model, tmp_path / "abc.arpa")
    return tmp_path / "abc.arpa"


def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [spoken(text, rng) for text in ("abba", "c", "bad cab")]


def test_the_best_beam_is_no_less_likely_than_the_greedy_text(ctc: Path) -> None:
    family: Any = load_family(ctc, device="cpu")
    greedy = family.generate(waveforms(), 0, 5)
    wide = {"beams": 40, "search": {"n_best": 5}, "ctc": {"token_log_prob": -50, "beam_log_prob": -500}}
    config = DecodingConfig.model_validate(wide)
    found = Searcher(family, config).transcripts(["a", "b", "c"], waveforms(), 0)
    alone = Searcher(family, config).transcripts(["b"], waveforms()[1:2], 0)
    assert alone[0].text == found[1].text
    assert [row["sum_log_prob"] for row in alone[0].nbest] == pytest.approx(
        [row["sum_log_prob"] for row in found[1].nbest], abs=1e-3
    )
    for one, best in zip(found, greedy, strict=True):
        assert len({row["text"] for row in one.nbest}) == 5
        sums = [row["sum_log_prob"] for row in one.nbest]
        assert sums == sorted(sums, reverse=True)
        assert one.text == one.nbest[0]["text"]
        log_probs, frames = family.log_probs([waveforms()[found.index(one)]])
        path = float(log_probs[0, : int(frames[0])].max(-1).values.sum())
        assert sums[0] >= path or one.text == best.text


def test_fusion_and_rescoring_change_what_is_found(ctc: Path, arpa: Path) -> None:
    family = load_family(ctc, device="cpu")

    def texts(**settings: Any) -> list[str]:
        config = DecodingConfig.model_validate({"beams": 20, **settings})
        return [one.text for one in Searcher(family, config).transcripts(["a", "b", "c"], waveforms(), 0)]

    fused = texts(lm={"model": str(arpa), "use": "fuse", "alpha": 2.0, "beta": 1.0})
    assert fused != texts()
    known = set(" ".join(SENTENCES).split())
    assert sum(word in known for text in fused for word in text.split()) > 0
    both = {"model": f"{arpa}:0.5+{arpa}:0.5", "use": "fuse", "alpha": 2.0, "beta": 1.0}
    assert texts(lm=both) == fused
    rescored = texts(search={"n_best": 20}, lm={"model": str(arpa), "alpha": 5.0, "beta": 5.0})
    assert rescored != texts()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 4, "search": {"prompt": "hello"}}, "search.prompt does not work with a CTC"),
        ({"beams": 4, "search": {"n_best": 5}}, "n_best is 5 and decoding.beams is 4"),
        ({"fallback": {"temperatures": [0.2]}}, "decoding.fallback does not work with a CTC"),
        ({"boost": {"terms": ["abba"]}}, "boosted terms .* set decoding.beams=50"),
        ({"beams": 4, "boost": {"terms": ["!"]}}, "no words"),
        ({"beams": 4, "search": {"hotwords": ["abba"]}}, "name the terms in decoding.boost"),
        ({"ctc": {"lexicon": "nowhere.txt"}}, "set decoding.beams=50"),
        ({"beams": 4, "ctc": {"lexicon": "nowhere.txt"}}, "nowhere.txt cannot be read"),
        ({"beams": 4, "lm": {"model": "x.arpa", "use": "fuse-tokens"}}, "set use to fuse or rescore"),
    ],
)
def test_what_a_ctc_model_cannot_do_is_said_in_one_sentence(ctc: Path, settings: dict[str, Any], message: str) -> None:
    family = load_family(ctc, device="cpu")
    with pytest.raises(InputError, match=message):
        Searcher(family, DecodingConfig.model_validate(settings)).transcripts(["a"], waveforms()[:1], 0)


def test_ctc_options_are_refused_where_they_do_nothing(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="CTC models only"):
        Searcher(load_family(tiny_model), DecodingConfig.model_validate({"ctc": {"beam_log_prob": -5}}))
    with pytest.raises(ValueError, match="lexicon_only needs"):
        CtcSearchConfig(lexicon_only=True)


def test_a_lexicon_file_is_read_in_the_form_of_the_language_model(tmp_path: Path, model: NgramModel) -> None:
    path = tmp_path / "words.txt"
    path.write_text("CAB\tc a b |\n\nDon't d o n t\nbad!\n", encoding="utf-8")
    found = read_lexicon(path, spoken_words)
    assert all(word in found for word in ("cab", "don't", "bad"))
    assert len(found) == 3
    assert found.begins("do")
    assert not found.begins("o")
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no words"):
        read_lexicon(path, spoken_words)
    assert words_of(Mixture([model, model], [0.5, 0.5])) == set(" ".join(SENTENCES).split())
    assert ctc_guide(DecodingConfig()) is None


def test_upper_case_vocabularies_are_scored_in_the_language_models_case(model: NgramModel) -> None:
    scores = LmWords(model, Lexicon(words_of(model) or ()), spoken_words, 1.0, 0.0, CtcSearchConfig())
    assert scores.finished(scores.begin(), "CAB") == scores.finished(scores.begin(), "cab")
    assert scores.unfinished("CA") == 0.0
    assert scores.unfinished("CX") == -10.0
    assert scores.unfinished("CXXXXXXXXXXX") == -20.0


def test_the_commands_search_with_beams_and_a_language_model(
    ctc: Path, arpa: Path, tmp_path: Path, tiny_corpus: Path, speechtune: Command
) -> None:
    said = speechtune(
        "transcribe", ctc, tiny_corpus, "decoding.beams=8", "decoding.search.n_best=4", "--out", tmp_path / "x.jsonl",
        "--quiet",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows
    assert all(1 <= len(row["nbest"]) <= 4 and row["text"] == row["nbest"][0]["text"] for row in rows)
    (tmp_path / "words.txt").write_text("cab\nbad\nabba\n", encoding="utf-8")
    settings = {
        "decoding": {
            "beams": 10,
            "lm": {"model": str(arpa), "use": "fuse", "alpha": 0.5, "beta": 1.0},
            "ctc": {"lexicon": str(tmp_path / "words.txt"), "lexicon_only": True},
        }
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = speechtune("evaluate", ctc, tiny_corpus, "--settings", tmp_path / "settings.yaml", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "wer" in done.stdout
    wrong = speechtune("transcribe", ctc, tiny_corpus, "decoding.beams=4", "decoding.ctc.lexicon=nowhere.txt")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
