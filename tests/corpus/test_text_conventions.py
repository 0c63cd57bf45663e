# ruff: noqa: RUF001, E501 - look-alike characters are tested; one case is one line
"""Every convention against hand-written answers, and the laws: applying twice is applying once, records lead back."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.conventions import TextConventions, TextPipeline, TextResult


def apply(text: str, language: str = "en", **keys: Any) -> TextResult:
    return TextPipeline(TextConventions.model_validate(keys), language).apply(text)


CASES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("unicode", "en", {}, "cafe\u0301", "caf\u00e9"),
    ("unicode", "en", {"unicode": "keep"}, "cafe\u0301", "cafe\u0301"),
    ("invisible", "en", {}, "\ufeffso\u00adft\u200b hy\u2060phen\u200e", "soft hyphen"),
    ("zwj after virama shapes the cluster", "hi", {}, "क\u094d\u200dष", "क\u094d\u200dष"),
    ("zwnj in Persian", "fa", {}, "می\u200cخواهم", "می\u200cخواهم"),
    ("zwj in emoji", "en", {}, "👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ("zwj between Latin letters joins nothing", "en", {}, "a\u200db", "ab"),
    ("whitespace", "en", {}, "  a \t b\n\u00a0c ", "a b c"),
    ("quotes", "en", {"quotes": "ascii"}, "“it’s” «so» ‚x‘", "\"it's\" \"so\" 'x'"),
    ("quotes", "he", {"quotes": "remove"}, 'צה"ל אמר "כן"', 'צה"ל אמר כן'),
    ("dashes", "en", {"dashes": "hyphen"}, "3–5 − a — b", "3-5 - a - b"),
    ("ellipsis", "en", {"ellipsis": "dots"}, "so…", "so..."),
    ("ellipsis", "en", {"ellipsis": "single"}, "so... ....", "so… ...."),
    ("digits", "hi", {"digits": "ascii"}, "२५ ٣ ３", "25 3 3"),
    ("niqqud", "he", {"hebrew_niqqud": "remove"}, "שָׁלוֹם בֵּית־סֵפֶר", "שלום בית־ספר"),
    ("maqaf", "he", {"hebrew_maqaf": "hyphen"}, "בית־ספר", "בית-ספר"),
    ("maqaf", "he", {"hebrew_maqaf": "space"}, "בית־ספר", "בית ספר"),
    ("gershayim", "he", {"hebrew_gershayim": "hebrew"}, "צה\"ל וכו' \"כן\"", 'צה״ל וכו׳ "כן"'),
    ("gershayim", "he", {"hebrew_gershayim": "ascii"}, "צה״ל וכו׳", "צה\"ל וכו'"),
    ("danda", "hi", {"danda": "period"}, "हाँ । ठीक है।", "हाँ. ठीक है."),
    ("danda", "hi", {"danda": "remove"}, "हाँ । ठीक है॥", "हाँ ठीक है"),
    ("noise", "en", {"noise_tags": "remove"}, "the dog, [noise] barked <LAUGHTER>. (coughs)", "the dog, barked."),
    ("brackets that hold words", "en", {"noise_tags": "remove"}, "see (the dog) [1]", "see (the dog) [1]"),
    ("unintelligible", "en", {"unintelligible": "remove"}, "he <unk> it (unintelligible)", "he it"),
    ("fillers", "en", {"fillers": "remove"}, "Um, the dog, uh. He umbrella", "The dog. He umbrella"),
    ("partial", "en", {"partial_words": "remove"}, "wh- what a well-known d- dog -", "what a well-known dog -"),
    ("repetitions", "en", {"repetitions": "remove"}, "I I, I want I want the the very very big", "I want the very very big"),
    ("sentences are not repetitions", "en", {"repetitions": "remove"}, "I go. Go on. two two 5 5", "I go. Go on. two two 5 5"),
    ("acronyms", "en", {"acronyms": {"GPU": "G P U"}}, "GPU GPUs gpu GPU's", "G P U GPUs gpu G P U's"),
    ("acronyms", "en", {"acronyms": {"G P U": "GPU"}}, "a G P U here", "a GPU here"),
    ("acronyms", "en", {"acronyms": {"GPU": "GPU (G-P-U)"}}, "GPU, GPU (G-P-U)", "GPU (G-P-U), GPU (G-P-U)"),
    ("code switch", "he", {"code_switch": {"דיפלוי": "deploy"}}, "עשיתי דיפלוי דיפלויים", "עשיתי deploy דיפלויים"),
    ("marks are inside words", "hi", {"replace": [{"from": "क", "to": "X"}]}, "की क", "की X"),
    ("case", "en", {"replace": [{"from": "colour", "to": "color"}]}, "Colour COLOUR colour", "Color COLOR color"),
    ("longest", "en", {"replace": [{"from": "new", "to": "old"}, {"from": "new york", "to": "NYC"}]}, "new york, new yorker", "NYC, old yorker"),
    ("parts", "en", {"replace": [{"from": "&", "to": "and", "whole_words": False}]}, "R&D", "RandD"),
    ("numbers", "en", {"numbers": "spell"}, "1,234 and 42, 21st 3.50!", "one thousand two hundred and thirty-four and forty-two, twenty-first three point five zero!"),
    ("ambiguous", "en", {"numbers": "spell"}, "007 10:30 3/4 B2B 3D 5% $5 1999 -4 1,23 22th 1.2.3", "007 10:30 3/4 B2B 3D 5% $5 1999 -4 1,23 22th 1.2.3"),
    ("years", "en", {"numbers": "spell", "years": "year"}, "in 1999.", "in nineteen ninety-nine."),
    ("years", "en", {"numbers": "spell", "years": "number"}, "1999", "one thousand nine hundred and ninety-nine"),
    ("numbers", "hi", {"numbers": "spell"}, "25 किताबें", "पच्चीस किताबें"),
    ("numbers", "de-DE", {"numbers": "spell"}, "123 und 1,5", "einhundertdreiundzwanzig und 1,5"),
    ("punctuation", "en", {"punctuation": "strip"}, "“Hi”, it’s (well-known)… 1,234.5 a:b x—y!", "Hi it’s well-known 1,234.5 a b x y"),
    ("punctuation", "en", {"punctuation": "sentence"}, "“Hi”, it's; (so)! Why?", "Hi, it's so! Why?"),
    ("punctuation", "he", {"punctuation": "strip"}, 'צה"ל, "בית־ספר" וכו׳.', 'צה"ל בית־ספר וכו׳'),
    ("punctuation", "hi", {"punctuation": "sentence"}, "हाँ, ठीक है।", "हाँ, ठीक है।"),
    ("casing", "en", {"casing": "sentence"}, "I'M HERE. WE CALL IT A BEAR AND I GO", "I'm here. We call it a bear and I go"),
    ("casing", "tr", {"casing": "lower"}, "ISPARTA İZMİR", "ısparta izmir"),
    ("tables own their case", "en", {"casing": "lower", "replace": [{"from": "pytorch", "to": "PyTorch"}]}, "PYTORCH IS Fast", "PyTorch is fast"),
    ("children's forms", "en", {"casing": "lower", "punctuation": "strip"}, "He goed, my tooths.", "he goed my tooths"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "language", "keys", "before", "after"), CASES, ids=lambda one: str(one)[:20])
def test_each_convention(what: str, language: str, keys: dict[str, Any], before: str, after: str) -> None:
    result = apply(before, language, **keys)
    assert (result.text, result.drop_reason) == (after, None), what


def test_the_defaults_keep_what_can_be_heard_or_seen() -> None:
    for text in ('a, "b"', "None", "123", "🙂 ok", "שלום (עולם)", "it's", "NaN", "um wh- I I [noise]", "[unk] — “x”…"):
        assert apply(text).text == text
        assert apply(text).changes == []


def test_rows_are_dropped_with_a_reason() -> None:
    assert apply("he (unintelligible) it", unintelligible="drop_row").drop_reason == "unintelligible speech"
    assert apply("a [noise]", noise_tags="drop_row").drop_reason == "noise tag"
    assert apply("[noise]", noise_tags="remove").drop_reason == "no text left"
    assert apply("um", fillers="remove").drop_reason == "no text left"
    assert apply("").drop_reason is None  # it was empty before; nothing was lost


EVERYTHING: dict[str, Any] = {
    "quotes": "ascii", "dashes": "hyphen", "ellipsis": "dots", "digits": "ascii", "hebrew_niqqud": "remove",
    "hebrew_maqaf": "hyphen", "hebrew_gershayim": "hebrew", "danda": "period", "noise_tags": "remove", "unintelligible": "remove",
    "fillers": "remove", "partial_words": "remove", "repetitions": "remove", "numbers": "spell", "years": "year",
    "acronyms": {"GPU": "GPU (G-P-U)", "NLP": "N L P"}, "code_switch": {"deploya": "deploy"},
    "replace": [{"from": "colour", "to": "color"}, {"from": "pytorch", "to": "PyTorch"}],
}  # fmt: skip
PIECES = [
    *("um", "Um,", "wh-", "I", "I", "I'm", "the", "the", "GPU", "G-P-U", "(G-P-U)", "NLP", "N", "L", "P", "pytorch", "COLOUR"),
    *("[noise]", "<unk>", "(", ")", "“", "”", '"', "'", "…", "...", "—", "-", ".", ",", "?", "!", ";", ":", "1,234", "42", "21st"),
    *("1999", "007", "३", "।", "शब्द", "क\u094d\u200dष", "שָׁלוֹם", 'צה"ל', "בית־ספר", "e\u0301", "\u200b", "\u200f", "🙂", "ﬁ", "İ", "ß"),
]  # fmt: skip


@pytest.mark.parametrize("punctuation", ["keep", "strip", "sentence"])
@pytest.mark.parametrize("casing", ["keep", "lower", "upper", "sentence"])
def test_applying_again_changes_nothing_and_the_record_leads_back(punctuation: str, casing: str) -> None:
    rng = random.Random(f"{punctuation}{casing}")
    pipelines = [
        TextPipeline(TextConventions.model_validate({**EVERYTHING, "punctuation": punctuation, "casing": casing}), one)
        for one in ("en", "he", "hi", "tr")
    ]
    changed = 0
    for _ in range(300):
        text = "".join(rng.choice(PIECES) + rng.choice(["", " ", " ", "  "]) for _ in range(rng.randint(1, 9)))
        pipeline = rng.choice(pipelines)
        once = pipeline.apply(text)
        if once.drop_reason:
            continue
        assert pipeline.apply(once.text).text == once.text, (text, pipeline.language)
        assert unicodedata.is_normalized("NFC", once.text)
        back = once.text
        for change in reversed(once.changes):
            assert change.after == back
            back = change.before
        assert back == text
        changed += once.text != text
    assert changed > 200


def test_what_cannot_be_applied_is_refused() -> None:
    with pytest.raises(InputError, match="'a' becomes 'b', which the table turns into 'c'"):
        apply("x", acronyms={"a": "b", "b": "c"})
    with pytest.raises(InputError, match="not possible for the language 'xx'"):
        apply("x", "xx", numbers="spell")
    with pytest.raises(InputError, match="never come to rest"):
        apply("a", acronyms={"a": "b"}, replace=[{"from": "b", "to": "a a"}])
    with pytest.raises(ValueError, match="truth values in YAML"):
        TextConventions.model_validate({"acronyms": {True: "on"}})


def test_a_language_overrides_only_what_it_names() -> None:
    from speechtune.corpus.prepare.policy import PreparePolicy

    policy = PreparePolicy.model_validate(
        {
            "text": {"casing": "lower", "quotes": "ascii"},
            "languages": {"he": {"casing": "keep"}, "en-IN": {"quotes": "keep"}},
        }
    )
    assert policy.conventions_for("he-IL").casing == "keep"
    assert policy.conventions_for("he-IL").quotes == "ascii"
    assert policy.conventions_for("en_in").quotes == "ascii"  # en-IN is not written en_in
    assert policy.conventions_for("en-IN").quotes == "keep"
    assert policy.conventions_for(None).casing == "lower"
