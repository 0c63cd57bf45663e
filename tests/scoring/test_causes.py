"""Every class of error planted once, and the laws that the classes keep."""

# ruff: noqa: RUF001, SIM905

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechtune.cli.app import build
from speechtune.core.errors import InputError
from speechtune.core.files import write_jsonl
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.alignment import count
from speechtune.scoring.causes import CauseOptions, Causes, find_causes
from speechtune.scoring.causes_classes import CLASSES, Knowledge, align_alike, classify
from speechtune.scoring.causes_words import FILLERS, FUNCTION_WORDS, HOMOPHONES, function_words, number_words
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.phones import spelled_phones
from speechtune.scoring.phones_espeak import phones_for, split_ipa
from speechtune.scoring.score import score_transcripts
from speechtune.scoring.score_options import cause_options

VOCABULARY = frozenset(
    "the a cat sat on mat we saw bear pear there their red fox ran home ice cream dog and to he went big".split()
)
KNOWN = Knowledge(FUNCTION_WORDS["en"], number_words("en"), FILLERS["en"], VOCABULARY)

PLANTED = {
    "no-output": ("the cat sat", "", ["no-output"] * 3),
    "loop": ("the cat sat", "the cat sat cat sat cat sat cat sat", ["loop"] * 6),
    "words-in-silence": ("", "thank you", ["words-in-silence"] * 2),
    "language-switch": ("we saw the bear", "we saw the медведь", ["language-switch"]),
    "case-punctuation": ("the cat's mat", "the cats mat", ["case-punctuation"]),
    "compound": ("we saw ice cream", "we saw icecream", ["compound"] * 2),
    "number": ("we saw 21 cat", "we saw twenty cat", ["number"]),
    "disfluency": ("the the cat sat", "the cat sat", ["disfluency"]),
    "homophone": ("we saw their cat", "we saw there cat", ["homophone"]),
    "out-of-vocabulary": ("we saw zebra", "we saw fox", ["out-of-vocabulary"]),
    "function-word": ("the cat sat on the mat", "the cat sat on a mat", ["function-word"]),
    "phonetic": ("we saw pear", "we saw bear", ["phonetic"]),
    "substitution": ("we saw fox", "we saw home", ["substitution"]),
    "deletion": ("the big cat", "the cat", ["deletion"]),
    "insertion": ("the cat", "the big cat", ["insertion"]),
}


def test_every_class_is_planted() -> None:
    assert list(PLANTED) == list(CLASSES)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_error_is_found(name: str) -> None:
    reference, hypothesis, expected = PLANTED[name]
    assert [one.cause for one in classify(reference.split(), hypothesis.split(), KNOWN)] == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("we saw um fox", "we saw fox", ["disfluency"]),  # a hesitation left out
        ("we saw fox", "we saw uh fox", ["disfluency"]),
        ("ze zebra ran", "zebra ran", ["disfluency"]),  # a broken-off word before the whole one
        ("to today", "today", ["function-word"]),  # "to" is a word of its own
        ("we saw icecream", "we saw ice cream", ["compound"] * 2),
        ("big ice cream fox", "pig icecream fox", ["phonetic", "compound", "compound"]),
        ("no no no no no", "no no no no no", []),
        ("we ran", "we we we we we ran", ["loop"] * 4),
        ("we we we we we ran", "we we we we ran", ["disfluency"]),  # the reference loops itself
        ("zebra", "1", ["number"]),  # number before out-of-vocabulary
        ("the night", "the knight", ["homophone"]),  # homophone before out-of-vocabulary
    ],
)
def test_order_and_edges(reference: str, hypothesis: str, expected: list[str]) -> None:
    known = Knowledge(KNOWN.function_words, KNOWN.number_words, KNOWN.fillers, VOCABULARY - {"night"})
    found = [one.cause for one in classify(reference.split(), hypothesis.split(), known)]
    if reference.startswith("big"):
        known = Knowledge(KNOWN.function_words, KNOWN.number_words, KNOWN.fillers, None)
        found = [one.cause for one in classify(reference.split(), hypothesis.split(), known)]
    assert found == expected


def test_an_output_that_loops_no_more_than_its_reference_has_no_loop() -> None:
    found = classify("we we we we fox".split(), "we ran ran ran ran".split(), KNOWN)
    assert len(found) == 4 and all(one.cause != "loop" for one in found)


def test_classes_add_up_to_the_errors_of_the_wer() -> None:
    draw = random.Random(1)
    words = [*sorted(VOCABULARY), "um", "21", "zebra", "icecream"]
    for _ in range(400):
        reference = draw.choices(words, k=draw.randint(0, 9))
        hypothesis = [word if draw.random() < 0.6 else draw.choice(words) for word in reference if draw.random() < 0.9]
        hypothesis += draw.choices(words, k=draw.randint(0, 2))
        found = classify(reference, hypothesis, KNOWN)
        assert len(found) == count(reference, hypothesis).errors
        edits = align_alike(reference, hypothesis)
        assert [one.ref for one in edits if one.ref is not None] == reference
        assert [one.hyp for one in edits if one.hyp is not None] == hypothesis


def test_alignment_pairs_words_that_sound_alike() -> None:
    pairs = {(one.ref, one.hyp) for one in align_alike("we pear mat".split(), "we bear".split())}
    assert ("pear", "bear") in pairs
    pairs = {(one.ref, one.hyp) for one in align_alike("we mat pear".split(), "we bear".split())}
    assert ("pear", "bear") in pairs


def test_word_lists() -> None:
    assert HOMOPHONES["their"] == {"there", "theyre"} and "two" in HOMOPHONES["to"]
    assert all(word in HOMOPHONES[other] for word, others in HOMOPHONES.items() for other in others)
    assert "er" not in FILLERS["de"] and "seventeen" in number_words("en") and "one" not in number_words("en")
    texts = ["ek kat sit op die mat"] * 5 + ["die hond"] * 2
    assert function_words("af", texts) == {"ek", "kat", "sit", "op", "die", "mat"}


def _causes(rows: list[tuple[str, str]], options: CauseOptions | None = None, **columns: str) -> Causes:
    utterances = [
        Utterance(
            utterance_id=f"u{i}",
            file_name="",
            text=text,
            duration_s=1.0,
            speaker_id=f"s{i % 3}",
            language=columns.get("language", "en"),
        )
        for i, (text, _) in enumerate(rows)
    ]
    corpus = Corpus(Path("c"), utterances)
    transcripts = [Transcript(utterance_id=f"u{i}", text=text) for i, (_, text) in enumerate(rows)]
    config = ScoringConfig(resamples=100)
    score = score_transcripts(corpus, transcripts, confidence=config)
    return find_causes(
        score, corpus, {one.utterance_id: one.text for one in transcripts}, options=options, config=config
    )


def test_counts_shares_pairs_and_examples() -> None:
    rows = [("We saw a pear.", "we saw a bear"), ("a pear there", "a bear there"), ("The cat sat.", "the cat sat")]
    causes = _causes([*rows, ("the dog ran", "dog ran")])
    assert causes.errors == 3 and sum(one.errors for one in causes.classes.values()) == 3
    phonetic = causes.to_json()["classes"]["homophone" if "bear" in HOMOPHONES["pear"] else "phonetic"]
    assert (phonetic["errors"], phonetic["substitutions"], phonetic["utterances"]) == (2, 2, 2)
    assert phonetic["share"] == pytest.approx(2 / 3) and phonetic["wer_part"] == pytest.approx(2 / 13)
    assert phonetic["examples"][0] == {
        "utterance_id": "u0", "reference": "we saw a [pear]", "hypothesis": "we saw a [bear]",
    }  # fmt: skip
    top = causes.pairs[0]
    assert (top.ref, top.hyp, top.count, top.said) == ("pear", "bear", 2, 2)
    assert [one.utterance_id for one in top.examples] == ["u0", "u1"]
    assert (causes.hidden.utterances, causes.hidden.errors) == (1, 2)  # The -> the, sat. -> sat
    text = causes.to_text()
    assert "phonetic" in text and "pear > bear  2 of 2" in text and "1 utterances (2 words)" in text


def test_worst_speakers_are_those_with_most_errors_over_the_average() -> None:
    rows = [("a b c d", "a b c d"), ("a b c d", "x y c d"), ("e", "z")] * 4  # s1: 8 of 16 words, s2: 4 of 4
    speakers = _causes(rows).speakers
    rate = 12 / 36
    assert [one.speaker_id for one in speakers] == ["s1", "s2"]
    assert speakers[0].excess == pytest.approx(8 - 16 * rate) and speakers[1].counts.rate == 1.0
    assert speakers[0].interval is not None and speakers[0].interval.unit == "utterance"


def test_another_language_is_told_by_its_text_and_by_the_transcript() -> None:
    pytest.importorskip("py3langid", reason="the language of a text is told by py3langid (extra audit)")
    rows = [("wir gehen heute in die schule und lernen lesen", "we are going to school today and we learn to read")]
    causes = _causes(rows, language="de")
    assert causes.classes["language-switch"].errors == causes.errors > 5
    utterance = Utterance(utterance_id="u", file_name="", text="il cane corre", duration_s=1.0, language="it")
    corpus = Corpus(Path("c"), [utterance])
    transcript = Transcript(utterance_id="u", text="the dog runs", language="en")
    score = score_transcripts(corpus, [transcript])
    found = find_causes(score, corpus, {"u": transcript.text}, languages={"u": "en"})
    assert found.classes["language-switch"].errors == 3


def test_training_corpus_tells_unknown_words(tmp_path: Path) -> None:
    trained = Corpus(tmp_path / "trained", [
        Utterance(utterance_id="a", file_name="a.wav", text="We saw a Fox!", duration_s=1.0, split="train"),
        Utterance(utterance_id="b", file_name="b.wav", text="zebra", duration_s=1.0, split="test"),
    ])  # fmt: skip
    trained.save()
    rows = [("we saw zebra", "we saw fox")]
    both = _causes(rows, CauseOptions(training_corpus=trained.root))
    assert both.vocabulary == 5 and both.classes["out-of-vocabulary"].errors == 0
    split = _causes(rows, CauseOptions(training_corpus=trained.root, training_split="train"))
    assert split.vocabulary == 4 and split.classes["out-of-vocabulary"].errors == 1 and not split.notes
    assert "no training corpus" in _causes(rows).notes[0]


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="--training-corpus is only used with --causes"):
        cause_options(False, Path("x"), None)
    with pytest.raises(InputError, match="--training-split is only used"):
        cause_options(True, None, "train")


def test_cli(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "ref.jsonl", [{"utterance_id": "a", "text": "we saw a pear", "language": "en"}])
    write_jsonl(tmp_path / "hyp.jsonl", [{"utterance_id": "a", "text": "we saw a bear"}])
    command = ["score", str(tmp_path / "ref.jsonl"), str(tmp_path / "hyp.jsonl"), "--causes", "-q"]
    result = CliRunner().invoke(build(), [*command, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["causes"]
    assert found["classes"]["phonetic"]["errors"] == 1 and list(found["classes"]) == list(CLASSES)
    text = CliRunner().invoke(build(), command).stdout
    assert "causes of the 1 word errors" in text
    wrong = CliRunner().invoke(build(), [*command[:-2], "--training-corpus", str(tmp_path), "--json"])
    assert wrong.exit_code == 2 and "--causes" in json.loads(wrong.stdout)["error"]


def test_espeak_says_what_sounds_alike_where_spelling_misleads() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the PyPI package espeakng-loader (extra: demo)")
    words = ["rough", "ruff", "chef", "shelf", "tough", "though", "scene", "keen"]
    phones = phones_for("espeak", "en", words)
    assert phones("chef") == ("ʃ", "ɛ", "f") and phones("scene") == ("s", "i", "n")
    assert phones("never asked for") == spelled_phones("never asked for")
    heard = Knowledge(phones=phones)
    causes = {
        (ref, hyp): [classify([ref], [hyp], known)[0].cause for known in (Knowledge(), heard)]
        for ref, hyp in (("rough", "ruff"), ("tough", "though"))
    }
    assert causes["rough", "ruff"] == ["substitution", "homophone"]
    assert causes["tough", "though"][1] == "substitution"
    assert phones_for("espeak", "he", ["שלום"])("שלום") == tuple("ʃalom")
    with pytest.raises(InputError, match="names none"):
        phones_for("espeak", None, words)
    with pytest.raises(InputError, match="no voice"):
        phones_for("espeak", "xx", words)


def test_ipa_is_split_into_phones() -> None:
    assert split_ipa("tʃˈɛɹz") == ("ʧ", "ɛ", "ɹ", "z")
    assert split_ipa("dˈoʊnt") == ("d", "o", "ʊ", "n", "t")
    assert split_ipa("bˈɜːd") == ("b", "ɜ", "d")
    assert split_ipa("") == ()
