"""A corpus of texts that break careless writers and readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtune.corpus.table import Corpus, Utterance

PLAIN_LINES = (
    "commas, \"quotes\", and 'apostrophes'; semicolons",
    "None",
    "123",
    "1.0",
    "true",
    "null",
    "nan",
    "",
    "double  space and\ttab inside",
    "emoji 👩‍👧 🇮🇱 é",
    "e\u0301 NFD against \u00e9 NFC",
    "\u05e9\u05dc\u05d5\u05dd \u200fRTL\u200e mixed עברית 12",
    "తెలుగు పాఠం",
    "back\\slash \\n not a newline | pipe # hash % percent",
    "line\u2028separator \x85 next \x0b vt \x0c ff",
    "\u00a0no-break space at both ends\u00a0",
    "=1+1",
    "-5 degrees",
    "<asr_text> inside <b>tags</b> &amp;",
    "{json: [1, 2]}",
)
ONLY_JSON = (" leading and trailing ", "two\nlines", "carriage\rreturn", "\ttab first")


def nasty_corpus(root: Path, make_audio: Any, texts: tuple[str, ...], spans: bool = True) -> Corpus:
    """One utterance per text: most have a file of their own, some are spans of one recording."""
    long = make_audio(root / "audio/long recording.wav", seconds=3.0)
    rows = []
    for number, text in enumerate(texts):
        row = Utterance(utterance_id=f"u{number:02d}", file_name="", text=text, duration_s=0.2)
        if spans and number % 4 == 3:
            row.file_name, row.start_s = "audio/" + long.name, round(0.1 * (number % 20), 3)
            row.end_s = round(row.start_s + 0.25, 3)
            row.duration_s = 0.25
        else:
            row.file_name = f"audio/ü {number}.wav"
            make_audio(root / row.file_name)
        if number % 5:
            row.speaker_id = f"u{number % 3}"
            row.age = str(6 + number % 2)
            row.gender = "fm"[number % 3 % 2]
        row.language = (None, "en", "he", "te")[number % 4]
        row.split = ("train", "dev", "test", None)[number // 2 % 4]
        row.session_id = f"session {number % 2}"
        row.extra = {"mood": 'glad, "very"', "score": 0.5, "words": [{"word": "x"}]} if number % 2 else {}
        rows.append(row)
    corpus = Corpus(root, rows, {"kept": len(rows)})
    corpus.save()
    return Corpus.load(root)
