"""Terms that the beam search of a CTC model prefers: against pyctcdecode, against every path, and by its laws."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain_kenlm
import pytest
import tiny_ctc
from test_ctc_beam import CHARACTERS, PIECES, WIDE, all_texts, random_log_probs, text_of, units_of

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.lm.arpa import write_arpa
from speechtune.decoding.lm.ctc_terms import BoostedWords
from speechtune.decoding.lm.ctc_words import Lexicon, LmWords, ctc_guide, words_of
from speechtune.decoding.lm.loading import load_lm
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.lm.training import train_ngram
from speechtune.models.ctc_search import CtcGuide, beam_search
from speechtune.models.ctc_search_config import CtcSearchConfig

Command = Callable[..., subprocess.CompletedProcess[str]]


def earned(scores: BoostedWords, text: str) -> float:
    """What a whole text earns."""
    total, state = 0.0, scores.begin()
    for word in text.split():
        gain, state = scores.finished(state, word)
        total += gain
    return total + scores.end(state)


@pytest.mark.parametrize("labels", [CHARACTERS, PIECES])
def test_single_words_are_boosted_as_pyctcdecodes_hotwords(labels: list[str]) -> None:
    package = pytest.importorskip("pyctcdecode", reason="pyctcdecode wants numpy 1: pip install --no-deps it")
    other = package.build_ctcdecoder(labels)
    hotwords = ["cab", "bad", "cabcab", "a"]
    scores = BoostedWords({one: 4.0 / len(one) for one in hotwords}, str.split, None)
    changed = 0
    for seed in range(12):
        log_probs = random_log_probs(np.random.default_rng([seed, 7]), 40, len(labels), 2.0)
        ours = beam_search(log_probs, units_of(labels), 20, 20, CtcGuide(CtcSearchConfig(), scores))
        theirs = other.decode_beams(log_probs, beam_width=20, hotwords=hotwords, hotword_weight=4.0)
        assert [text_of(one.tokens, labels) for one in ours] == [one[0] for one in theirs], seed
        assert [one.log_prob for one in ours] == pytest.approx([one[3] for one in theirs])
        assert [one.total for one in ours] == pytest.approx([one[4] for one in theirs])
        changed += ours[0].tokens != beam_search(log_probs, units_of(labels), 20, 1, CtcGuide(WIDE))[0].tokens
    assert changed


def test_with_a_language_model_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("pyctcdecode", reason="pyctcdecode wants numpy 1: pip install --no-deps it")
    for module in (package.decoder, package.language_model):
        monkeypatch.setattr(module, "kenlm", plain_kenlm, raising=False)
    model = train_ngram([line.split() for line in ("ab cab", "a bad cab", "bad dad", "a dab")], 3).model
    write_arpa(model, tmp_path / "lm.arpa")
    other = package.build_ctcdecoder(CHARACTERS, str(tmp_path / "lm.arpa"), None, 0.6, 1.2)
    hotwords = ["cab", "dad"]  # both known to the model: pyctcdecode goes on charging unknown ones
    known = Lexicon(words_of(model) or ())
    inner = LmWords(load_lm(str(tmp_path / "lm.arpa")), known, str.split, 0.6, 1.2, CtcSearchConfig(), set(hotwords))
    guide = CtcGuide(CtcSearchConfig(), BoostedWords(dict.fromkeys(hotwords, 2.0), str.split, inner))
    for seed in range(12):
        log_probs = random_log_probs(np.random.default_rng([seed, 8]), 40, len(CHARACTERS), 2.0)
        log_probs[-1] = np.where(np.arange(len(CHARACTERS)) == 2, math.log(0.99), math.log(0.002))  # see test_ctc_beam
        ours = beam_search(log_probs, units_of(CHARACTERS), 30, 30, guide)
        theirs = other.decode_beams(log_probs, beam_width=30, hotwords=hotwords, hotword_weight=6.0)
        assert [text_of(one.tokens, CHARACTERS) for one in ours] == [one[0] for one in theirs], seed
        assert [one.total for one in ours] == pytest.approx([one[4] for one in theirs], abs=1e-3)


def test_terms_of_several_words_rank_every_text_by_its_whole_occurrences() -> None:
    log_probs = random_log_probs(np.random.default_rng(11), 6, 4, 1.0)
    labels = CHARACTERS[:4]
    terms = {"a b": 0.9, "ba": -1.3}
    found = beam_search(log_probs, units_of(labels), 10**6, 10**6, CtcGuide(WIDE, BoostedWords(terms, str.split, None)))
    totals = {}
    for text, log_prob in all_texts(log_probs, labels).items():
        said = text.split()
        pairs = sum(said[at : at + 2] == ["a", "b"] for at in range(len(said)))
        totals[text] = log_prob + 2 * 0.9 * pairs - 2 * 1.3 * said.count("ba")
    assert {text_of(one.tokens, labels): one.total for one in found} == pytest.approx(totals)
    assert text_of(found[0].tokens, labels) == max(totals, key=totals.__getitem__)


def test_whole_terms_only_in_any_case_and_punctuation() -> None:
    scores = BoostedWords({"Dr. Okonkwo": 1.0, "cat": 0.5}, spoken_words, None)
    assert earned(scores, "call DR OKONKWO now") == pytest.approx(9.0)
    assert earned(scores, "call dr") == earned(scores, "dr oko") == earned(scores, "catalogue") == 0.0
    assert earned(scores, "cat dr cat") == pytest.approx(3.0)
    assert earned(scores, "dr. okonkwo's") == 0.0
    state = scores.finished(scores.begin(), "dr")[1]
    assert scores.finished(scores.begin(), "dr")[0] == pytest.approx(2.0)
    assert [scores.unfinished(part, state) for part in ("o", "okon", "x")] == pytest.approx([1.0, 4.0, -2.0])
    assert scores.unfinished("c") == pytest.approx(0.5)


def test_the_beginnings_of_a_text_never_owe_more_than_its_end() -> None:
    """What is earned so far is what a failure would cost, at every place of random texts."""
    rng = random.Random(4)
    scores = BoostedWords({"ab cab": 1.0, "cab": 0.5, "bad cab ab": 0.7}, str.split, None)
    for _ in range(200):
        text = [rng.choice(["ab", "cab", "bad", "dad"]) for _ in range(8)]
        total, state = 0.0, scores.begin()
        for word in text:
            gain, state = scores.finished(state, word)
            total += gain
            failed = total + scores.finished(state, "zzz")[0]
            assert failed == pytest.approx(total + scores.end(state))
            assert failed >= -1e-9
        assert total + scores.end(state) >= 0.5 * 3 * text.count("cab") - 1.5 * text.count("cab")


def test_a_term_is_known_to_lexicon_and_language_model(tmp_path: Path) -> None:
    write_arpa(train_ngram([["a", "bad", "cab"], ["a", "dab"]], 2).model, tmp_path / "lm.arpa")
    (tmp_path / "words.txt").write_text("cab\nbad\n", encoding="utf-8")
    base: dict[str, Any] = {"beams": 20, "ctc": {"lexicon": str(tmp_path / "words.txt"), "lexicon_only": True}}
    plain = ctc_guide(DecodingConfig.model_validate(base))
    boosted = ctc_guide(DecodingConfig.model_validate({**base, "boost": {"terms": ["dada"], "weight": 0.0}}))
    assert plain is not None and boosted is not None and plain.scores is not None and boosted.scores is not None
    assert plain.scores.unfinished("dad") == -math.inf
    assert boosted.scores.unfinished("dad") == 0.0
    assert boosted.scores.finished(boosted.scores.begin(), "dada")[0] == 0.0
    assert boosted.scores.finished(boosted.scores.begin(), "dadad")[0] == -math.inf
    fused = {"beams": 20, "lm": {"model": str(tmp_path / "lm.arpa"), "use": "fuse", "alpha": 1.0}}
    with_lm = ctc_guide(DecodingConfig.model_validate({**fused, "boost": {"weights": {"dada": 0.0}}}))
    without = ctc_guide(DecodingConfig.model_validate(fused))
    assert with_lm is not None and without is not None and with_lm.scores is not None and without.scores is not None
    gains = [one.finished(one.begin(), "dada")[0] for one in (with_lm.scores, without.scores)]
    assert gains[0] - gains[1] == pytest.approx(10 * math.log(10))
    with pytest.raises(InputError, match="no words"):
        BoostedWords({"...": 1.0}, spoken_words, None)


def test_the_verb_finds_boosted_terms(tmp_path: Path, tiny_corpus: Path, speechtune: Command) -> None:
    model = tiny_ctc.make_ctc(tmp_path / "model", "wav2vec2-group")

    def texts(weight: float) -> list[str]:
        said = speechtune(
            "transcribe", model, tiny_corpus, "decoding.beams=20", "decoding.boost.terms=[abba]",
            f"decoding.boost.weight={weight}", "decoding.ctc.token_log_prob=-20", "decoding.ctc.beam_log_prob=-100",
            "--out", tmp_path / f"{weight}.jsonl", "--quiet",
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
        return [json.loads(line)["text"] for line in (tmp_path / f"{weight}.jsonl").read_text().splitlines()]

    assert not any("abba" in one.split() for one in texts(0.0))
    assert any("abba" in one.split() for one in texts(20.0))
