"""CHAT: codes become the words that were said; bullets become spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timed_fixtures import rows_of, write

from speechtune.core.errors import InputError
from speechtune.corpus.importers.chat_text import Rules, clean
from speechtune.corpus.importing import Fill, import_corpus

FILE = """@UTF8
@Begin
@Languages:\teng
@Participants:\tCHI Eve Target_Child, MOT Sue Mother
@ID:\teng|Brown|CHI|2;03.04|female|||Target_Child|||
@ID:\teng|Brown|MOT|||||Mother|||
@Media:\teve01, audio
*CHI:\t<I want> [/] I want &-um more (.) cookie@f . \x15100_900\x15
%mor:\tpro|I v|want
*MOT:\tyou want
\tmore ? \x15950_1500\x15
*CHI:\txxx dog . \x151500_1800\x15
*CHI:\t0 [=! cries] . \x151800_1900\x15
*CHI:\tno bullet here .
@End
"""


def test_bullets_headers_and_what_is_left_out(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/eve01.wav", seconds=3.0)
    write(tmp_path / "in/010011.cha", FILE)
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "chat")
    assert list(rows) == ["I want I want um more cookie.", "you want more?"]
    child = rows["I want I want um more cookie."]
    assert (child.start_s, child.end_s, child.duration_s) == (0.1, 0.9, 0.8)
    assert (child.speaker_id, child.age, child.gender, child.language) == ("010011-CHI", "2", "female", "en")
    assert (child.extra["age_months"], child.extra["role"]) == (27, "Target_Child")
    assert result.dropped_by_reason == {"unintelligible speech": 1, "no words": 1, "utterance without times": 1}
    rows, result = rows_of(tmp_path / "in", tmp_path / "chi", "chat", ("speakers=CHI", "unintelligible=remove"))
    assert list(rows) == ["I want I want um more cookie.", "dog."]
    assert result.dropped_by_reason["speaker not asked for"] == 1


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        ("<the boy> [//] the girl runs .", "the boy the girl runs."),
        ("gonna [: going to] (be)cause I goed [* m:=ed] home .", "gonna because I goed home."),
        ("ball [x 3] !", "ball ball ball!"),
        ("&+fr &~ba friend &=laughs &*MOT:mhm here +...", "friend here"),
        ("+< b@l is choo_choo and ice+cream .", "b is choo choo and ice cream."),
        ("no:: <that one> [>] [?] , please +/.", "no that one, please"),
        ("well ‡ ↑yes↓ (1.5) hola@s:spa [- spa] [+ imi] .", "well, yes hola."),
        ('+" why not ?', "why not?"),
        ("it 0is 0det mine [=! whispers] [% aside] „ yeah .", "it mine, yeah."),
        ("<I said <you know> [/] you know> [//] go .", "I said you know you know go."),
        ("10 + 2 .", "10 2."),
        ("www .", ""),
        ("&um &k tirando de \u2039la calle\u203a [//] .", "um tirando de la calle."),
    ],
)
def test_codes_become_words(tier: str, said: str) -> None:
    assert clean(tier, Rules())[0] == said


def test_the_rules_change_what_they_name() -> None:
    tier = "<the boy> [//] &-um &+fr gonna [: going to] (be)cause ."
    for setting, said in (
        ({}, "the boy um gonna because."),
        ({"retraced": "drop"}, "um gonna because."),
        ({"fillers": "drop"}, "the boy gonna because."),
        ({"fragments": "keep"}, "the boy um fr gonna because."),
        ({"replacements": "target"}, "the boy um going to because."),
        ({"shortenings": "said"}, "the boy um gonna cause."),
        ({"punctuation": "drop"}, "the boy um gonna because"),
    ):
        assert clean(tier, Rules(**setting))[0] == said  # type: ignore[arg-type]
    assert clean("yyy", Rules())[1]


def test_words_agree_with_pylangacq_where_both_mean_the_same() -> None:
    pylangacq = pytest.importorskip("pylangacq", reason="pylangacq is not installed")
    tiers = ("I want more cookie .", "that's [* x] mine [?] .", "choose <the one> [!] .")
    text = "".join(f"*CHI:\t{tier}\n" for tier in tiers)
    whole = f"@UTF8\n@Begin\n@Participants:\tCHI Eve Target_Child\n@ID:\teng|B|CHI|||||Target_Child|||\n{text}@End\n"
    found = pylangacq.CHAT.from_strs([whole]).words(by_utterance=True)
    mine = [clean(tier, Rules(punctuation="drop"))[0].split() for tier in tiers]
    assert [[word for word in words if word not in ".?!"] for words in found] == mine


def test_faults_are_named(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/eve01.wav", seconds=1.0)
    write(
        tmp_path / "in/a.cha",
        "@Begin\n@Media:\teve01, audio\n*CHI:\tone . \x15100_400\x15\n*CHI:\ttwo . \x15200_500\x15\n"
        "*CHI:\tthree . \x15600_600\x15\n*CHI:\tfour . \x15900_9000\x15\n*CHI:\tfive . \x15700_850\x15\n@End\n",
    )
    with pytest.raises(InputError, match=r"a\.cha line 3: it overlaps .* line 4 of the same speaker"):
        import_corpus(tmp_path / "in", tmp_path / "out")
    result = import_corpus(tmp_path / "in", tmp_path / "out", drop_bad=True)
    assert (result.kept, result.dropped_by_reason) == (
        1,
        {"overlapping span": 2, "span without length": 1, "span outside audio": 1},
    )
    write(tmp_path / "bad/x.cha", "hello")
    with pytest.raises(InputError, match="no @Begin"):
        import_corpus(tmp_path / "bad", tmp_path / "out2")
    with pytest.raises(InputError, match="unknown key 'speaker'; did you mean speakers"):
        import_corpus(tmp_path / "in", tmp_path / "out2", fill=Fill(settings=("speaker=CHI",)))
