"""Long recordings with known words: tones instead of speech, read back by a recogniser that knows their pitches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.audio.io import load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import TimedWord, runs_of
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.long import pieces, transcribing
from speechtune.decoding.long.pieces import Piece
from speechtune.decoding.long.recording import Recording
from speechtune.decoding.long.sequential import Window, split_by_timestamps, walk
from speechtune.decoding.long.skipped import say_more
from speechtune.decoding.long.transcribing import transcribe_all
from speechtune.decoding.search_blocks import FallbackConfig
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Hypothesis, Limits, load_family

RATE = 16_000
WORD_S = 0.3
WORDS = [f"w{number}" for number in range(20)]


def tones(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Words of 0.3 s, each a pitch of its own, with pauses of 0.1 to 6 s."""
    parts, said = [np.zeros(RATE // 2)], []
    time = np.arange(round(WORD_S * RATE)) / RATE
    for _ in range(count):
        number = int(rng.integers(len(WORDS)))
        said.append(WORDS[number])
        pause_s = float(rng.choice([0.1, 0.2, 0.5, 1.0, 6.0], p=[0.4, 0.3, 0.15, 0.1, 0.05]))
        parts += [0.3 * np.sin(2 * np.pi * (400 + 200 * number) * time), np.zeros(round(pause_s * RATE))]
    return np.concatenate(parts).astype(np.float32), said


def read_back(waveform: np.ndarray) -> list[TimedWord]:
    """The words of a stretch; a cut one is read as "cut"."""
    frames = len(waveform) // 160
    loud = np.abs(waveform[: frames * 160].reshape(frames, 160)).max(axis=1) > 0.05
    found = []
    for first, last in runs_of(loud):
        samples = waveform[first * 160 : last * 160]
        spectrum = np.abs(np.fft.rfft(samples, 16_000))
        number = round((float(spectrum.argmax()) - 400) / 200)
        whole = last - first >= 29
        found.append(TimedWord(WORDS[number] if whole else "cut", first / 100, last / 100, 1.0))
    return found


class Listener:
    """A family that hears tones."""

    name = "listener"
    language = "en"
    contexts = ("fit", "full")
    limits = Limits(30.0, 448)
    model = torch.nn.Identity()

    def __init__(self) -> None:
        self.longest_s = 0.0

    def context_frames(self, seconds: float, context: str = "fit") -> int:
        return 3000 if context == "full" else min(3000, round(100 * seconds))

    def generate(self, waveforms: Sequence[np.ndarray], *rest: Any) -> list[Hypothesis]:
        self.longest_s = max(self.longest_s, *(len(one) / RATE for one in waveforms))
        texts = [" ".join(word.text for word in read_back(one)) for one in waveforms]
        return [Hypothesis(text=text, tokens=[1], log_prob=-0.1, truncated=False) for text in texts]


class ToneTimer:
    """Times of the words, by the same ears."""

    def __init__(self, *rest: Any) -> None:
        pass

    def times(self, waveform: np.ndarray, text: str) -> list[TimedWord]:
        return read_back(waveform)


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """A voice detector and a timer for tones."""

    def loud(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        padded = [np.pad(one, (0, -len(one) % 512)).reshape(-1, 512) for one in waveforms]
        return [(np.abs(one).max(axis=1) > 0.05).astype(np.float32) for one in padded]

    monkeypatch.setattr(pieces, "speech_probabilities", loud)
    monkeypatch.setattr(transcribing, "WordTimer", ToneTimer)


def corpus_of(root: Path, lengths: Sequence[int]) -> tuple[Corpus, list[list[str]]]:
    rows, texts = [], []
    for number, count in enumerate(lengths):
        samples, said = tones(np.random.default_rng(number), count)
        write_audio(root / f"{number}.wav", samples)
        texts.append(said)
        rows.append(
            Utterance(utterance_id=str(number), file_name=f"{number}.wav", text="", duration_s=len(samples) / RATE)
        )
    return Corpus(root, rows, {}), texts


@pytest.mark.usefixtures("ears")
@pytest.mark.parametrize("mode", ["vad", "chunks"])
@pytest.mark.parametrize("context", ["fit", "full"])
def test_no_word_of_a_long_recording_is_lost_or_doubled(tmp_path: Path, mode: Any, context: Any) -> None:
    corpus, texts = corpus_of(tmp_path, [250, 3, 100])
    assert corpus.utterances[0].duration_s > 120
    family = Listener()
    found = transcribe_all(family, corpus, DecodingConfig(long=mode, context=context))  # type: ignore[arg-type]
    assert [one.utterance_id for one in found] == ["0", "1", "2"]
    assert [one.text.split() for one in found] == texts
    assert family.longest_s <= 30.0
    assert found[1].segments == []
    samples = load_audio(tmp_path / "0.wav")
    for one in found[0].segments:
        heard = read_back(samples[round(one["start_s"] * RATE) : round(one["end_s"] * RATE) + 160])
        assert [word.text for word in heard if word.text != "cut"] == one["text"].split()


@pytest.mark.usefixtures("ears")
def test_at_full_context_windows_are_filled_across_pauses_and_times_stay_those_of_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every piece costs a whole window there: a recording with pauses would cost several times its speech."""

    class Counting(Listener):
        decoded = 0

        def generate(self, waveforms: Sequence[np.ndarray], *rest: Any) -> list[Hypothesis]:
            self.decoded += len(waveforms)
            return super().generate(waveforms, *rest)

    monkeypatch.setattr(transcribing, "parts_of", lambda pieces, *rest: [[] for _ in pieces])  # each is decoded once
    corpus, (said,) = corpus_of(tmp_path, [120])
    heard = read_back(load_audio(tmp_path / "0.wav"))
    count = {}
    for leave_out in (None, False):
        family: Any = Counting()
        long_form = {"words": True, "leave_out_pauses": leave_out}
        config = DecodingConfig.model_validate({"context": "full", "long_form": long_form})
        (found,) = transcribe_all(family, corpus, config)
        count[leave_out] = family.decoded
        assert found.text.split() == said
        words = [word for segment in found.segments for word in segment["words"]]
        assert [word["start_s"] for word in words] == pytest.approx([one.start_s for one in heard], abs=0.011)
        assert [word["end_s"] for word in words] == pytest.approx([one.end_s for one in heard], abs=0.011)
        for one in found.segments:
            assert one["start_s"] <= one["words"][0]["start_s"] and one["words"][-1]["end_s"] <= one["end_s"]
        for before, after in pairwise(found.segments):
            assert before["end_s"] <= after["start_s"]
    assert count[None] <= -(-corpus.seconds_of_audio // 26) < count[False]


def test_a_piece_of_several_spans_knows_where_its_times_are_in_the_recording() -> None:
    piece = Piece(((RATE, 3 * RATE), (5 * RATE, 6 * RATE)))
    assert (piece.start, piece.end, piece.heard) == (RATE, 6 * RATE, 3 * RATE)
    places = [piece.place_s(at_s) for at_s in (0.0, 1.5, 2.0, 2.5, 9.0)]
    assert places == [(0, 1.0), (0, 2.5), (1, 5.0), (1, 5.5), (1, 12.0)]


@pytest.mark.usefixtures("ears")
def test_a_span_of_a_long_file_has_times_from_its_own_beginning(tmp_path: Path) -> None:
    corpus, _ = corpus_of(tmp_path, [250])
    samples = load_audio(tmp_path / "0.wav")
    row = corpus.utterances[0]
    row.start_s, row.end_s = 20.0, 90.0
    row.duration_s = 70.0
    config = DecodingConfig.model_validate({"long_form": {"words": True}})
    (found,) = transcribe_all(Listener(), corpus, config)  # type: ignore[arg-type]
    whole = [word.text for word in read_back(samples[20 * RATE : 90 * RATE])]
    assert found.text.split() == whole
    first = found.segments[0]["words"][0]
    assert read_back(samples[20 * RATE :])[0].start_s == pytest.approx(first["start_s"], abs=0.02)


@pytest.mark.usefixtures("ears")
def test_short_recordings_have_word_times_where_they_are_asked_for(tmp_path: Path) -> None:
    corpus, texts = corpus_of(tmp_path, [3, 100, 2])
    config = DecodingConfig.model_validate({"long_form": {"words": True}})
    family: Any = Listener()
    for rows in (corpus, corpus.subset(lambda one: one.utterance_id != "1")):
        found = {one.utterance_id: one for one in transcribe_all(family, rows, config)}
        for name, said in (("0", texts[0]), ("2", texts[2])):
            (segment,) = found[name].segments
            heard = read_back(load_audio(tmp_path / f"{name}.wav"))
            assert [one["word"] for one in segment["words"]] == said
            assert [one["start_s"] for one in segment["words"]] == pytest.approx([one.start_s for one in heard])
            assert segment["end_s"] > segment["words"][-1]["end_s"]
    assert len(found) == 2


@pytest.mark.usefixtures("ears")
@pytest.mark.parametrize("context", ["fit", "full"])
def test_a_recogniser_that_stops_after_the_first_sentence_loses_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """It ends a text at the first pause of 0.4 s, as a model does that was trained on single sentences."""

    class OneSentence(Listener):
        def generate(self, waveforms: Sequence[np.ndarray], *rest: Any) -> list[Hypothesis]:
            texts = []
            for waveform in waveforms:
                words = read_back(waveform)
                ends = [place for place, (a, b) in enumerate(pairwise(words), 1) if b.start_s - a.end_s > 0.4]
                texts.append(" ".join(word.text for word in words[: ends[0] if ends else None]))
            return [Hypothesis(text, [1], -0.1, False) for text in texts]

    corpus, (text, *_) = corpus_of(tmp_path, [250])
    config = DecodingConfig(context=context)
    (said,) = transcribe_all(OneSentence(), corpus, config)  # type: ignore[arg-type]
    assert "cut" not in said.text
    assert said.flags == ["stopped-early"]
    starts = [one["start_s"] for one in said.segments]
    assert starts == sorted(starts)
    monkeypatch.setattr(transcribing, "parts_of", lambda pieces, *rest: [[] for _ in pieces])
    (lossy,) = transcribe_all(OneSentence(), corpus, config)  # type: ignore[arg-type]
    assert len(lossy.text.split()) < 0.7 * len(text)
    missing, before = (len(text) - len(one.text.split()) for one in (said, lossy))
    assert missing < before / 2  # a part of 3 s may hold two sentences of tones


@pytest.mark.usefixtures("ears")
def test_at_full_context_only_two_slow_pieces_are_tried_in_parts_where_that_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part costs a whole window there; a speaker who is slow all the time would cost several times the speech."""
    decoded: list[int] = []
    plain = transcribing.transcribe

    def counting(family: Any, utterances: Any, *rest: Any) -> list[Transcript]:
        decoded.append(len(utterances))
        return plain(family, utterances, *rest)

    monkeypatch.setattr(transcribing, "transcribe", counting)
    corpus, (said,) = corpus_of(tmp_path, [150])  # two letters a tone are few
    for context, tried in (("fit", "all"), ("full", "two")):
        decoded.clear()
        (found,) = transcribe_all(Listener(), corpus, DecodingConfig(context=context))  # type: ignore[arg-type]
        assert found.text.split() == said and found.flags == []
        pieces, parts = decoded
        assert parts > 2 * pieces if tried == "all" else pieces > 2 and parts <= 2 * 28 / 1.5


def test_parts_that_loop_guess_or_are_impossibly_fast_do_not_stand() -> None:
    before, spans = Transcript(utterance_id="a", text="one two"), [(0, 3 * RATE), (4 * RATE, 7 * RATE)]

    def parts(text: str, log_prob: float = -0.2, flags: Sequence[str] = ()) -> list[Transcript]:
        first = Transcript(utterance_id="a", text="one two three four", log_prob=-0.2)
        return [first, Transcript(utterance_id="b", text=text, log_prob=log_prob, flags=list(flags))]

    ladder = FallbackConfig()
    assert say_more(before, parts("five six"), spans, ladder)
    assert say_more(before, parts(""), spans, ladder)
    assert not say_more(before, parts("five six", log_prob=-1.5), spans, ladder)
    assert not say_more(before, parts("five six", flags=["truncated"]), spans, ladder)
    assert not say_more(before, parts("no " * 60), spans, ladder)
    assert not say_more(before, parts("abcdefghij klmnopqrst " * 4), spans, ladder)
    assert not say_more(Transcript(utterance_id="a", text="one two three four"), parts("five"), spans, ladder)


def test_too_much_overlap_is_refused(tmp_path: Path) -> None:
    corpus, _ = corpus_of(tmp_path, [250])
    config = DecodingConfig.model_validate({"long": "chunks", "long_form": {"chunk_s": 10, "overlap_s": 6}})
    with pytest.raises(InputError, match=r"overlap_s is 6 and a chunk is 10 s"):
        transcribe_all(Listener(), corpus, config)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sequential needs one Transformers Whisper model, not a Listener"):
        transcribe_all(Listener(), corpus, DecodingConfig(long="sequential"))  # type: ignore[arg-type]


T0 = 1000


def t(seconds: float) -> int:
    return T0 + round(seconds / 0.02)


@pytest.mark.parametrize(
    ("tokens", "parts", "step_s"),
    [
        ([1, 2], [(0.0, 30.0)], 30.0),  # no timestamps: the whole window
        ([t(0), 1, t(4)], [(0.0, 4.0)], 30.0),  # a single one at the end: nothing follows
        ([t(0), 1, t(4), t(4), 2, t(9)], [(0.0, 4.0), (4.0, 9.0)], 30.0),
        ([t(0), 1, t(4), t(4), 2], [(0.0, 4.0)], 4.0),  # unfinished: the next window begins at 4 s
        ([t(0), 1, t(4), t(5), 2, t(9), t(9)], [(0.0, 4.0), (5.0, 9.0)], 9.0),
        ([t(0)], [(0.0, 30.0)], 30.0),
    ],
)
def test_a_window_is_divided_as_openai_whisper_does(
    tokens: list[int], parts: list[tuple[float, float]], step_s: float
) -> None:
    found, step = split_by_timestamps(tokens, T0, 30.0)
    assert [edge for a, b, _ in found for edge in (a, b)] == pytest.approx([edge for part in parts for edge in part])
    assert step == pytest.approx(step_s)
    kept = [token for *_, part in found for token in part]
    assert kept == tokens[: len(kept)]


def test_the_walk_goes_on_at_the_last_timestamp_and_loses_no_word(tmp_path: Path) -> None:
    samples, said = tones(np.random.default_rng(5), 120)
    write_audio(tmp_path / "a.wav", samples)
    prompts: list[list[int]] = []

    def decode(waveform: np.ndarray, previous: Sequence[int]) -> Window:
        prompts.append(list(previous))
        tokens: list[int] = []
        heard = read_back(waveform)
        for word in heard:
            if word.text == "cut":
                tokens += [t(word.start_s)]
                break
            tokens += [t(word.start_s), int(word.text[1:]), t(word.end_s)]
        silent = 0.9 if not heard else 0.0
        log_prob = -2.0 if not heard else -0.1
        hot = 1.0 if len(prompts) == 2 else 0.0
        return Window(Hypothesis("", tokens, log_prob, False, no_speech_prob=silent), hot)

    recording = Recording(tmp_path / "a.wav", 0.0, len(samples) / RATE)
    found = list(walk(recording, decode, T0, 10.0, FallbackConfig()))
    assert [WORDS[token] for one in found for token in one.tokens if token < T0] == said
    assert prompts[0] == []
    assert prompts[1]
    assert prompts[2] == []  # the second window was decoded hot: its text is no prompt
    assert len(prompts[4]) > len(prompts[3])
    heard = read_back(samples)
    assert [one.start_s for one in found] == pytest.approx([word.start_s for word in heard], abs=0.03)
    prompts.clear()
    list(walk(recording, decode, T0, 10.0, FallbackConfig(), condition=False))
    assert not any(prompts)


def test_a_window_is_decoded_as_transformers_decodes_it(tiny_model: Path) -> None:
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    from speechtune.decoding.long.timestamps import decode_window

    family: Any = load_family(tiny_model)
    family.model.eval()
    rng = np.random.default_rng(0)
    config = DecodingConfig(context="full", max_new_tokens=20)
    model = WhisperForConditionalGeneration.from_pretrained(tiny_model).eval()
    for _ in range(3):
        waveform = rng.standard_normal(3 * RATE).astype(np.float32) * 0.1
        mine = decode_window(family, waveform, [], config)
        features = family.front_end([waveform], 300)
        settings = GenerationConfig.from_model_config(model.config)
        settings.update(**family.generation_config.to_dict())
        settings.max_initial_timestamp_index = 50
        theirs = model.generate(
            features,
            generation_config=settings,
            return_timestamps=True,
            max_new_tokens=20,
            return_dict_in_generate=False,
        )[0].tolist()
        start = int(family.config.decoder_start_token_id)
        theirs = [token for token in theirs if token not in (start, family.eot)]
        parts, _ = split_by_timestamps(mine.tokens, family.first_timestamp, 3.0)
        kept = [token for *_, part in parts for token in part]  # what follows is decoded again in the next window
        assert kept == theirs[: len(kept)]
        assert len(kept) >= 3
        again = decode_window(family, waveform, mine.tokens, config, temperature=0.8)
        assert again.log_prob <= 0
        assert again == decode_window(family, waveform, mine.tokens, config, temperature=0.8)


@pytest.mark.parametrize("mode", ["chunks", "sequential"])
def test_the_verb_takes_a_recording_longer_than_the_window(
    speechtune: Callable[..., Any], tiny_model: Path, tmp_path: Path, mode: str
) -> None:
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "long.wav", (0.1 * rng.standard_normal(8 * RATE)).astype(np.float32))
    command = ["transcribe", tiny_model, tmp_path / "long.wav", f"decoding.long={mode}", "--quiet", "--json"]
    limits = ["decoding.max_new_tokens=8", "decoding.long_form.temperatures=[0]"]
    done = speechtune(*command, *limits, "--out", tmp_path / "long.srt")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["transcripts"]
    from speechtune.corpus.importers.subtitle_files import read_cues

    shown = " ".join(line for *_, lines in read_cues(tmp_path / "long.srt") for line in lines)
    assert shown.replace(" ", "") == row["text"].replace(" ", "")
    assert all(0 <= one["start_s"] <= one["end_s"] <= 8.0 for one in row["segments"])


@pytest.mark.usefixtures("ears")
def test_a_chunk_whose_text_stops_early_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recogniser that stops after three words in every second window; the other way of decoding does not."""
    corpus, (said,) = corpus_of(tmp_path, [250])

    class Hasty(Listener):
        def generate(self, waveforms: Sequence[np.ndarray], *rest: Any) -> list[Hypothesis]:
            found = super().generate(waveforms, *rest)
            return [
                Hypothesis(" ".join(one.text.split()[:3]), [1], -0.1, False) if place % 2 else one
                for place, one in enumerate(found)
            ]

    class TextTimer(ToneTimer):
        def times(self, waveform: np.ndarray, text: str) -> list[TimedWord]:
            return read_back(waveform)[: len(text.split())]

    monkeypatch.setattr(transcribing, "WordTimer", TextTimer)
    config = DecodingConfig(long="chunks")
    (filled,) = transcribe_all(Hasty(), corpus, config)  # type: ignore[arg-type]
    assert filled.text.split() == said
    assert filled.flags == ["hole-filled"]
    monkeypatch.setattr(transcribing, "_fill_of", lambda family, config, timer: None)
    (lossy,) = transcribe_all(Hasty(), corpus, config)  # type: ignore[arg-type]
    assert len(lossy.text.split()) < len(said)
    heard = lambda waveform: " ".join(word.text for word in read_back(waveform))  # noqa: E731
    monkeypatch.setattr(transcribing, "_with_timestamps", lambda family, config: heard)
    (whole,) = transcribe_all(Hasty(), corpus, config)  # type: ignore[arg-type]
    assert whole.text.split() == said
    assert whole.flags == ["stopped-early"]
