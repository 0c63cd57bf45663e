"""The checks of a text by itself. The columns are described in docs/audit.md."""

from __future__ import annotations

from speechtune.corpus.audit.checks import Check

TEXT = (
    Check(
        name="mixed_script",
        title="letters of two scripts in one word",
        rules={"error": "mixed_script_words > 0"},
        meaning="Look-alike letters are other tokens: the model never sees the right word.",
        remedy="Correct the letters (often Cyrillic or Greek look-alikes of Latin ones).",
        value="mixed_script_words",
        source="issue section 1; corpus/alphabets.py",
    ),
    Check(
        name="foreign_letters",
        title="letters outside the language's alphabet",
        rules={
            "warning": "foreign_letter_kinds > {text.foreign_letters_warn_above}",
            "note": "foreign_letter_kinds > 0",
        },
        meaning="Rare tokens the model cannot learn from a few examples; or a text in another language.",
        remedy="Correct the text; spell code switches by one convention.",
        value="foreign_letter_kinds",
    ),
    Check(
        name="language_mismatch",
        title="text in another language than the table says",
        rules={
            "warning": "language_mismatch AND text_language_confidence >= {text.language_confidence} "
            "AND chars >= {text.language_min_letters}"
        },
        meaning="A wrong language token, or a wrong text.",
        remedy="Correct the language column or the text.",
        value="text_language_confidence",
    ),
    Check(
        name="digits",
        title="digits in the text",
        rules={"note": "digits > 0"},
        meaning="The same sounds are written in several ways (20, twenty).",
        remedy="Write numbers by one convention (speechtune prepare).",
        value="digits",
        source="children plan; DA-18",
    ),
    Check(
        name="symbols",
        title="symbols that are not spoken or not spelled out",
        rules={"note": "symbols > 0 OR urls > 0"},
        meaning="Symbols such as & or % are read in several ways; others are not heard at all.",
        remedy="Spell them out or remove them (speechtune prepare).",
        value="symbols",
        source="issue section 1",
    ),
    Check(
        name="markup",
        title="markup or an annotation in the text",
        rules={"warning": "markup_found IS NOT NULL"},
        meaning="The model learns to write tags that nobody says.",
        remedy="Remove tags, brackets and speaker labels.",
        source="P10; corpus/text_measures.py",
    ),
    Check(
        name="control_characters",
        title="invisible control characters",
        rules={"warning": "control_characters > 0"},
        meaning="Invisible tokens that count as errors.",
        remedy="Remove them (speechtune prepare).",
        value="control_characters",
        source="corpus/text_measures.py",
    ),
    Check(
        name="mojibake",
        title="wrongly decoded characters",
        rules={"error": "mojibake OR replacement_characters > 0"},
        meaning="Letters that the language does not have enter the output.",
        remedy="Read the source table with its right encoding.",
        source="corpus/text_measures.py",
    ),
    Check(
        name="not_nfc",
        title="not in Unicode normal form NFC",
        rules={"note": "NOT is_nfc"},
        meaning="One letter has two spellings, hence two token sequences.",
        remedy="Normalise to NFC (speechtune prepare).",
        source="Unicode Standard Annex 15",
    ),
    Check(
        name="repeated_phrase",
        title="a phrase repeated over and over",
        rules={"warning": "repeated_phrase IS NOT NULL"},
        meaning="The mark of a recogniser that ran in circles: a pseudo-label, not a transcript.",
        remedy="Listen; correct or remove it.",
        source="R1, P10 (part 3); corpus/text_measures.py",
    ),
    Check(
        name="hallucination_phrase",
        title="a phrase that recognisers invent",
        rules={"warning": "hallucination_phrase IS NOT NULL"},
        meaning="Subtitle credits and thanks for watching come from a recogniser, not from the speaker.",
        remedy="Listen; correct or remove it.",
        source="P10 (part 3); corpus/text_measures.py",
    ),
    Check(
        name="casing_unlike_corpus",
        title="casing unlike the corpus",
        rules={"note": "casing_unlike_corpus"},
        meaning="Two casings of each word compete for probability.",
        remedy="Choose one casing (speechtune prepare).",
        source="D9; corpus-wide majority",
    ),
)
