"""ELAN and Praat: tiers are speakers, annotations are spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timed_fixtures import rows_of, write

from speechtune.core.errors import InputError
from speechtune.corpus.importers.textgrid import read_textgrid
from speechtune.corpus.importing import Fill, import_corpus

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT VERSION="3.0">
<HEADER TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/talk%201.wav" MIME_TYPE="audio/x-wav"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="100"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="700"/>
<TIME_SLOT TIME_SLOT_ID="c" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="d" TIME_VALUE="1500"/>
<TIME_SLOT TIME_SLOT_ID="e"/></TIME_ORDER>
<TIER TIER_ID="ann@words" PARTICIPANT="Ann" LINGUISTIC_TYPE_REF="t" LANG_REF="te">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">
<ANNOTATION_VALUE>నమస్తే &amp; hi</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER>
<TIER TIER_ID="Bob" LINGUISTIC_TYPE_REF="t">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="c" TIME_SLOT_REF2="d">
<ANNOTATION_VALUE>bob speaks</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="d" TIME_SLOT_REF2="d">
<ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER>
<TIER TIER_ID="english" PARENT_REF="ann@words" LINGUISTIC_TYPE_REF="r">
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
<ANNOTATION_VALUE>hello</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
</TIER>
<LANGUAGE LANG_ID="te" LANG_LABEL="Telugu"/>
</ANNOTATION_DOCUMENT>
"""


def test_elan_tiers(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/talk 1.wav", seconds=2.0)
    write(tmp_path / "in/session.eaf", EAF)
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "elan")
    assert {text: (row.start_s, row.end_s, row.speaker_id, row.language) for text, row in rows.items()} == {
        "నమస్తే & hi": (0.1, 0.7, "Ann", "te"),
        "bob speaks": (0.5, 1.5, "Bob", None),
    }
    assert result.dropped_by_reason == {"empty annotation": 1}
    assert result.overlapping_spans == 2  # of two speakers: allowed, and counted
    rows, _ = rows_of(tmp_path / "in", tmp_path / "tier", "elan", ("tiers=english",))
    assert [(text, row.start_s, row.end_s) for text, row in rows.items()] == [("hello", 0.1, 0.7)]
    with pytest.raises(InputError, match=r"has no tier 'x' \(it has: ann@words, Bob, english\)"):
        import_corpus(tmp_path / "in", tmp_path / "no", fill=Fill(settings=("tiers=x",)))
    write(tmp_path / "in/session.eaf", EAF.replace('TIME_SLOT_REF2="b"', 'TIME_SLOT_REF2="e"'))
    with pytest.raises(InputError, match="annotation a1: it is not aligned with the time axis"):
        import_corpus(tmp_path / "in", tmp_path / "no")
    write(tmp_path / "in/session.eaf", EAF[:300])
    with pytest.raises(InputError, match="is not XML"):
        import_corpus(tmp_path / "in", tmp_path / "no")


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "Ann"
        xmin = 0
        xmax = 2
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1.5
            text = "she said ""hi"" 12 times"
        intervals [3]:
            xmin = 1.5
            xmax = 2
            text = "größe"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "Ann - phones"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "sil"
"""
SHORT = """File type = "ooTextFile short"
"TextGrid"

0
2
<exists>
3
"IntervalTier"
"Ann"
0
2
3
0
0.25
""
0.25
1.5
"she said ""hi"" 12 times"
1.5
2
"größe"
"TextTier"
"clicks"
0
2
1
0.5
"x"
"IntervalTier"
"Ann - phones"
0
2
1
0
2
"sil"
"""
TIERS = [
    ("Ann", [(0.0, 0.25, ""), (0.25, 1.5, 'she said "hi" 12 times'), (1.5, 2.0, "größe")]),
    ("Ann - phones", [(0.0, 2.0, "sil")]),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT])
def test_textgrids_of_all_kinds_are_read_alike(tmp_path: Path, text: str, encoding: str) -> None:
    path = write(tmp_path / "a.TextGrid", text, encoding)
    assert read_textgrid(path) == TIERS
    praatio = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    theirs = praatio.openTextgrid(str(path), includeEmptyIntervals=True)
    found = [(float(one.start), float(one.end), one.label) for one in theirs.getTier("Ann").entries]
    assert [(start, end, label) for start, end, label in found] == TIERS[0][1]


def test_textgrid_rows(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/wav/a.wav", seconds=2.0)
    write(tmp_path / "in/a.TextGrid", SHORT)
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "textgrid")
    assert {text: (row.start_s, row.end_s, row.speaker_id) for text, row in rows.items()} == {
        'she said "hi" 12 times': (0.25, 1.5, "Ann"),
        "größe": (1.5, 2.0, "Ann"),
    }
    assert result.dropped_by_reason == {"empty annotation": 1}
    write(tmp_path / "in/a.TextGrid", SHORT[:150])
    with pytest.raises(InputError, match="ends too early"):
        import_corpus(tmp_path / "in", tmp_path / "no")
    write(tmp_path / "in/a.TextGrid", SHORT.replace('"Ann"', '"words"'))
    with pytest.raises(InputError, match=r"no interval tier of utterances .*--set tiers="):
        import_corpus(tmp_path / "in", tmp_path / "no")
