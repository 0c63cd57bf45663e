"""From texts and terms to a synthetic corpus: what is said, by whom, marked how; engines other than espeak-ng."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.corpus.synthesis import EngineChoice, SynthesisOrder, open_engine, piper, synthesise_corpus
from speechtune.corpus.synthesis.texts import Term, read_carriers, read_sentences, read_terms, term_sentences
from speechtune.corpus.table import Corpus

CARRIERS = ["I saw the {term} today.", "{term} is new.", "Where is my {term}?", "No {term}, no fun."]


@pytest.fixture
def espeak() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the PyPI package espeakng-loader (extra: demo)")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_term_meets_every_carrier_before_it_meets_one_again() -> None:
    terms = [Term(f"term{number}") for number in range(9)]
    for seed in range(20):
        sentences = term_sentences(terms, CARRIERS, 6, "train", seed)
        assert sentences == term_sentences(terms, CARRIERS, 6, "train", seed)
        assert len(sentences) == 54
        for term in terms:
            own = [
                one.text.lower().replace(term.spelling, "{term}") for one in sentences if one.terms == (term.spelling,)
            ]
            assert len(set(own[:4])) == 4
            assert len(own) == 6
        used = Counter(one.text.lower().replace(one.terms[0], "{term}") for one in sentences)
        assert max(used.values()) - min(used.values()) <= 5
    assert any(one.text == "Term3 is new." for one in sentences)


def test_texts_terms_and_carriers_are_read(tmp_path: Path) -> None:
    plain = read_sentences(write(tmp_path / "a.txt", "One, two.", "", "  Three "), "train")
    assert [one.text for one in plain] == ["One, two.", "Three"]
    rows = write(
        tmp_path / "prompts.jsonl",
        json.dumps({"text": "A  cat.", "term": "cat"}),
        json.dumps({"text": "Dogs bark.", "terms": ["dogs", "bark"], "kind": "x"}),
    )
    first, second = read_sentences(rows, "train")
    assert (first.text, first.terms, first.kind) == ("A cat.", ("cat",), "term")
    assert (second.terms, second.kind) == (("dogs", "bark"), "x")
    assert read_terms(write(tmp_path / "t.txt", "Makolet\tmA:k'olet", "bus")) == [
        Term("Makolet", "mA:k'olet"),
        Term("bus"),
    ]
    assert read_terms(write(tmp_path / "t.jsonl", '{"term": "bus", "count": 3}')) == [Term("bus")]
    assert read_carriers(write(tmp_path / "c.txt", *CARRIERS)) == CARRIERS


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (lambda path: read_sentences(path, "train"), "a.jsonl", '{"txt": "a"}', "row 1 has no text"),
        (lambda path: read_sentences(path, "train"), "a.txt", "", "has no text to speak"),
        (read_terms, "t.txt", "bus\nBus", "has the term 'Bus' twice"),
        (read_terms, "t.jsonl", '{"word": "bus"}', "row 1 has no term"),
        (read_carriers, "c.txt", "no place", "needs {term} in it once"),
        (read_carriers, "c.txt", "", "has no sentences"),
    ],
)
def test_wrong_files_are_one_sentence(
    tmp_path: Path, read: Callable[[Path], object], name: str, content: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, content))
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "missing.txt")


@pytest.mark.usefixtures("espeak")
def test_a_corpus_is_marked_balanced_and_the_same_again(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.txt", *(f"This is sentence number {number}." for number in range(84)), "...")
    order = SynthesisOrder(texts=texts, voices=3, language="en", seed=5)
    result = synthesise_corpus(order, tmp_path / "one", workers=1)
    made = Corpus.load(tmp_path / "one")
    assert result.kept == len(made) == 84
    assert result.dropped_by_reason == {"no sound was made of the text": 1}
    assert len(result.voices) == 3
    assert max(result.voices.values()) - min(result.voices.values()) <= 1
    for one in made:
        assert one.extra["synthetic"] is True
        assert one.extra["engine"] == "espeak-ng"
        assert one.extra["voice"] == one.speaker_id
        assert (one.split, one.language, one.source) == ("train", "en", "synthetic:espeak-ng")
        assert made.path_of(one).is_file()
    synthesise_corpus(order, tmp_path / "two", workers=2)  # more than eighty clips: two processes
    for one in made:
        assert made.path_of(one).read_bytes() == (tmp_path / "two" / one.file_name).read_bytes()


@pytest.mark.usefixtures("espeak")
def test_terms_are_spoken_as_they_are_pronounced(tmp_path: Path) -> None:
    terms = write(tmp_path / "terms.txt", "Makolet\tmA:k'olet", "bus")
    carriers = write(tmp_path / "carriers.txt", *CARRIERS)
    result = synthesise_corpus(SynthesisOrder(terms=terms, carriers=carriers, per_term=3, voices=2), tmp_path / "out")
    assert result.clips_per_term == {"Makolet": 3, "bus": 3}
    card = Corpus.load(tmp_path / "out").card
    assert card["terms"] == ["Makolet", "bus"]
    assert card["pronunciations"] == {"Makolet": "mA:k'olet"}
    for order, message in (
        (SynthesisOrder(terms=terms), "--terms and --carriers go together"),
        (SynthesisOrder(), "nothing to say"),
        (SynthesisOrder(texts=carriers, language="zz"), "no language 'zz'"),
        (SynthesisOrder(texts=carriers, voices=999), "lower --voices"),
        (SynthesisOrder(texts=carriers, engine=EngineChoice("festival")), "no engine 'festival'"),
    ):
        with pytest.raises(InputError, match=message):
            synthesise_corpus(order, tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("language", ["en", "en-us", "hi", "he", "it"])
def test_every_voice_that_is_offered_speaks(language: str) -> None:
    engine = open_engine(EngineChoice())
    names = engine.voices(language)
    assert len(names) == len(set(names)) >= 13
    text = {"hi": "नमस्ते", "he": "שלום"}.get(language, "hello")
    for name in names:
        voice = engine.draw_voice(name, np.random.default_rng(0))
        assert np.abs(engine.speak(text, voice, 0, {})).max() > 0.01, name


def voice_file(folder: Path, speakers: int = 1) -> Path:
    model = folder / "xx_YY-test-low.onnx"
    model.write_bytes(b"model")
    config = {
        "num_speakers": speakers,
        "language": {"code": "xx_YY"},
        "inference": {"length_scale": 2.0},
        "audio": {"sample_rate": 8_000},
    }
    (folder / "xx_YY-test-low.onnx.json").write_text(json.dumps(config))
    return model


def fake_piper(folder: Path, fails: bool = False) -> Path:
    """A stand-in for the executable: writes as many samples at 8 kHz as the text has letters, times 1000."""
    script = folder / "piper"
    script.write_text(
        f"""#!{sys.executable}
import sys, numpy as np, soundfile
words = sys.argv[1:]
get = lambda key: words[words.index(key) + 1]
if {fails}:
    sys.exit("no such thing")
text = sys.stdin.read().strip()
level = 0.1 * (1 + int(get("--speaker")) if "--speaker" in words else 1)
soundfile.write(get("--output_file"), np.full(round(1000 * len(text) * float(get("--length_scale"))), level), 8000)
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_the_piper_executable_gets_text_speaker_and_tempo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = voice_file(tmp_path, speakers=3)
    fake_piper(tmp_path)
    monkeypatch.setattr(piper, "_package", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    engine = piper.Piper([str(model)])
    assert engine.voices("xx") == engine.voices("xx-YY") == [f"xx_YY-test-low#{number}" for number in range(3)]
    voice = engine.draw_voice("xx_YY-test-low#2", np.random.default_rng(0))
    assert 2 * 0.85 <= voice.length_scale <= 2 * 1.2
    assert voice.language == "xx"
    samples = engine.speak("abcde", voice, 0, {})
    assert len(samples) == pytest.approx(5_000 * voice.length_scale * 2, abs=2)
    assert np.median(samples) == pytest.approx(0.3, abs=0.01)
    with pytest.raises(InputError, match="no given piper voice speaks 'en'"):
        engine.voices("en")
    with pytest.raises(InputError, match="cannot use the pronunciation of 'a'"):
        engine.check({"a": "b"}, "xx")
    fake_piper(tmp_path, fails=True)
    with pytest.raises(SpeechtuneError, match="no such thing"):
        engine.speak("abcde", voice, 0, {})


def test_without_piper_or_its_voice_the_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = voice_file(tmp_path)
    monkeypatch.setattr(piper, "_package", lambda: None)
    monkeypatch.setattr(piper, "shutil", SimpleNamespace(which=lambda name: None))
    with pytest.raises(InputError, match="piper is not installed: run pip install piper-tts"):
        piper.Piper([str(model)])
    with pytest.raises(InputError, match="needs a voice model"):
        piper.Piper([])
    with pytest.raises(InputError, match=r"gone\.onnx does not exist"):
        piper.Piper([str(tmp_path / "gone.onnx")])
    (tmp_path / "xx_YY-test-low.onnx.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        piper.Piper([str(model)])


@pytest.mark.slow
def test_a_real_piper_voice_is_reproducible(tmp_path: Path) -> None:
    named = os.environ.get("SPEECHTUNE_PIPER_MODEL")
    if not named:
        pytest.skip("needs a Piper voice: name its .onnx file in SPEECHTUNE_PIPER_MODEL")
    engine = piper.Piper([named])
    language = engine._code(next(iter(engine.models))).split("_")[0]
    voice = engine.draw_voice(engine.voices(language)[0], np.random.default_rng(0))
    once, again, other = (engine.speak("One two three.", voice, seed, {}) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.usefixtures("espeak")
def test_the_verb(speechtune: Callable[..., object], tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.txt", "Hello there.", "How are you?")
    done = speechtune("synthesise", texts, "--out", tmp_path / "out", "--voices", 2, "--json")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    assert json.loads(done.stdout)["kept"] == 2  # type: ignore[attr-defined]
    failed = speechtune("synthesise", texts, "--out", tmp_path / "out")
    assert failed.returncode == 2  # type: ignore[attr-defined]
    assert "exists and is not empty" in failed.stderr  # type: ignore[attr-defined]
