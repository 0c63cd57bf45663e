"""Laws of live transcription, with a recogniser that hears exactly what is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from spoken_blocks import AlwaysVoice, LevelVoice, Listener, spoken, understood

from speechtune.core.errors import InputError
from speechtune.decoding.streaming.agreement import LocalAgreement, follows, joined, joint, units_of
from speechtune.decoding.streaming.clock import instant, steady
from speechtune.decoding.streaming.recogniser import Recognised
from speechtune.decoding.streaming.streaming_config import StreamingConfig
from speechtune.decoding.streaming.transcriber import StreamingTranscriber, Update

RATE = 16_000


def stream(listener: Any = None, clock: Any = None, refiner: Any = None, **settings: Any) -> StreamingTranscriber:
    config = StreamingConfig(**settings)
    return StreamingTranscriber(listener or Listener(), config, clock=clock, refiner=refiner, voice=LevelVoice())


def run(live: StreamingTranscriber, audio: np.ndarray, size: int) -> list[Update]:
    updates = []
    for first in range(0, len(audio), size):
        updates += live.feed(audio[first : first + size])
    return updates + live.finish()


def talk(seed: int, sentences: int = 5) -> tuple[np.ndarray, list[str]]:
    """Sentences of 1 to 14 words with pauses between them, and their words."""
    draw = np.random.default_rng(seed)
    parts, words = [np.zeros(int(draw.integers(0, 40_000)), np.float32)], []
    for _ in range(sentences):
        said = [int(one) for one in draw.integers(100, 900, draw.integers(1, 15))]
        parts.append(spoken(said, int(draw.integers(12_000, 60_000))))
        words += [f"w{one}" for one in said]
    return np.concatenate(parts), words


@pytest.mark.parametrize("factor", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_word_is_committed_once_and_in_order(seed: int, factor: float) -> None:
    audio, words = talk(seed)
    live = stream(clock=steady(factor), max_buffer_s=5.0)
    shown: list[str] = []
    for update in run(live, audio, 4_000):
        before = list(shown)
        shown += [one.text for one in update.committed]
        assert shown[: len(before)] == before  # what is committed never changes
        assert live.longest_buffer_s <= 5.0
    assert shown == words == [one.text for one in live.committed]
    assert live.text == " ".join(words)
    times = [one.at_s for one in live.committed]
    assert times == sorted(times)


def test_segments_hold_every_committed_word_once() -> None:
    audio, words = talk(7)
    updates = run(stream(max_buffer_s=4.0), audio, 3_000)
    segments = [one.segment for one in updates if one.segment]
    assert [word.text for one in segments for word in one.words] == words
    assert " ".join(one.text for one in segments if one.text) == " ".join(words)
    edges = [edge for one in segments for edge in (one.start_s, one.end_s)]
    assert edges == sorted(edges) and edges[-1] <= len(audio) / RATE


def test_no_audio_is_decoded_in_two_segments() -> None:
    pause = 8_800  # with the gap behind a word 0.65 s: a pause, and shorter than both margins
    audio = np.concatenate([spoken(range(100, 104), pause), spoken(range(200, 204), pause)])
    updates = run(stream(pause_s=0.5), audio, 1_600)
    first, second = [one.segment for one in updates if one.segment]
    assert first.end_s <= second.start_s
    assert first.end_s - second.start_s == pytest.approx(0.0)


@pytest.mark.parametrize("settings", [{}, {"agreement": 3, "step_s": 0.4}, {"max_buffer_s": 3.0, "listen_s": 0.1}])
def test_the_pieces_in_which_audio_is_fed_change_nothing(settings: dict[str, Any]) -> None:
    audio, _ = talk(3)
    found = [run(stream(clock=steady(0.3), **settings), audio, size) for size in (333, 4_000, 16_001, len(audio))]
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) > 8


def test_words_are_committed_while_the_speaker_goes_on_and_only_when_drafts_agree() -> None:
    audio = spoken([*range(100, 116)])  # 8 s without a pause
    ends_s = [0.4 + 0.5 * place for place in range(16)]
    mean = {}
    for agreement in (1, 2, 3):
        live = stream(agreement=agreement)
        run(live, audio, 2_000)
        delays = [one.at_s - end_s for one, end_s in zip(live.committed, ends_s, strict=True)]
        mean[agreement] = np.mean(delays[:8])
        assert min(delays) >= 0
    assert mean[1] < mean[2] < mean[3] < 4.0
    two = stream(agreement=2, margin_s=0.0)  # drafts at 1, 2, 3 ... s hear two words more each
    run(two, audio, 2_000)
    assert [one.at_s for one in two.committed[:8]] == [2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0]
    late = stream(agreement=99)
    assert next(one for one in run(late, audio, 2_000) if one.committed).kind == "final"


def test_latency_is_what_a_hand_computes() -> None:
    live = stream(clock=steady(0.1), agreement=1, margin_s=0.0)
    live.feed(spoken(range(100, 104)))  # words end at 0.4, 0.9, 1.4 and 1.9 s; drafts at 1 and 2 s cost 0.1 and 0.2 s
    assert [(one.text, one.heard_s) for one in live.committed] == [
        ("w100", 1.0), ("w101", 1.0), ("w102", 2.0), ("w103", 2.0),
    ]  # fmt: skip
    assert [one.at_s for one in live.committed] == pytest.approx([1.1, 1.1, 2.2, 2.2])
    slow = stream(clock=steady(2.0), agreement=1, margin_s=0.0)
    slow.feed(spoken(range(100, 110)))  # the draft at 1 s is done at 3 s, the next is of 3 s and done at 9 s
    assert [one.at_s for one in slow.committed] == pytest.approx([3.0, 3.0, 9.0, 9.0, 9.0, 9.0])
    assert slow.clock.busy_s == pytest.approx(8.0)
    at_once = instant()
    assert [at_once.after(heard_s, 1.0, 0.25) for heard_s in (1.0, 2.0, 1.5)] == [1.0, 2.0, 2.0]
    assert at_once.busy_s == pytest.approx(0.75)


def test_silence_commits_nothing_and_is_not_kept() -> None:
    listener = Listener()
    live = stream(listener)
    for _ in range(100):
        assert live.feed(np.zeros(RATE, np.float32)) == []
        assert live.buffered_s < 3.5
    assert live.finish() == [] == live.finish()
    assert live.text == "" and listener.asked == [] and live.tentative == []


def test_a_stream_that_is_finished_or_fed_nonsense_says_so() -> None:
    live = stream()
    with pytest.raises(ValueError, match="finite"):
        live.feed(np.array([0.0, np.nan], np.float32))
    live.finish()
    with pytest.raises(ValueError, match="finished"):
        live.feed(np.zeros(10, np.float32))
    with pytest.raises(InputError, match=r"max_buffer_s is 40 and the model's window 30 s"):
        stream(max_buffer_s=40)


def test_a_draft_is_told_what_is_committed_before_it() -> None:
    listener = Listener()
    live = stream(listener, prompt_words=3, margin_s=0.2)
    run(live, np.concatenate([spoken(range(100, 106), 20_000), spoken(range(200, 206), 20_000)]), 1_000)
    drafts = [(given, prompt) for _, given, prompt, draft in listener.asked if draft]
    assert (["w100", "w101"], "") in drafts
    assert drafts[-1][1] == "w103 w104 w105" and drafts[-1][0][0] == "w200"


def test_refining_commits_only_what_the_second_pass_says() -> None:
    audio, words = talk(5)
    live = stream(Listener(), refiner=Listener(upper=True), max_buffer_s=5.0)
    updates = run(live, audio, 4_000)
    assert [one.text for one in live.committed] == [one.upper() for one in words]
    assert not any(one.committed for one in updates if one.kind == "draft")
    assert any(one.agreed for one in updates) and all(one.agreed <= len(one.tentative) for one in updates)


def test_a_draft_that_loops_is_not_believed() -> None:
    class Looping(Listener):
        def recognise(self, waveform: np.ndarray, given: Any, prompt: str, draft: bool) -> Recognised:
            return Recognised(["la"] * 30, looping=True) if draft else Recognised(understood(waveform))

    live = stream(Looping())
    assert all(not one.tentative for one in run(live, spoken(range(100, 110), RATE), 1_000))
    assert live.text == " ".join(f"w{one}" for one in range(100, 110))


@pytest.mark.parametrize("call", range(1, 9))
def test_an_interrupted_decoding_loses_nothing(call: int) -> None:
    class Interrupted(Listener):
        def recognise(self, waveform: np.ndarray, given: Any, prompt: str, draft: bool) -> Recognised:
            found = super().recognise(waveform, given, prompt, draft)
            if len(self.asked) == call:
                raise KeyboardInterrupt
            return found

    audio, words = talk(6)
    listener = Interrupted()
    live = stream(listener, max_buffer_s=4.0)
    with pytest.raises(KeyboardInterrupt):
        live.feed(audio)
    updates = live.finish()
    assert [word.text for one in updates for word in one.committed] == words
    assert max(seconds for seconds, *_ in listener.asked) <= 4.0


def test_characters_are_the_units_where_no_spaces_are_written() -> None:
    class Chinese(Listener):
        unspaced = True

        def recognise(self, waveform: np.ndarray, given: Any, prompt: str, draft: bool) -> Recognised:
            return Recognised([chr(0x4E00 + int(one[1:])) for one in understood(waveform) if one[0] == "w"])

    live = stream(Chinese())
    run(live, spoken(range(100, 110), RATE), 1_000)
    assert live.text == "".join(chr(0x4E00 + one) for one in range(100, 110))
    assert joined(units_of(" 你好 ", True), True) == "你好"


def test_agreement_is_the_common_beginning_of_the_last_hypotheses() -> None:
    two = LocalAgreement(2)
    assert two.agreed(["a", "b", "x"]) == []
    assert two.agreed(["a", "b", "c"]) == ["a", "b"]
    two.commit(2)
    assert two.agreed(["c", "d"]) == ["c"]
    assert two.agreed([]) == []
    three = LocalAgreement(3)
    assert [three.agreed(["a", *more]) for more in (["b"], ["b"], [])] == [[], [], ["a"]]
    assert LocalAgreement(1).agreed(["a", "b"]) == ["a", "b"]


def test_what_follows_committed_words_is_found_whatever_the_hypothesis_makes_of_them() -> None:
    assert follows(["the", "big", "dog"], ["The", "pig", "dog,", "ran"]) == ["ran"]
    assert follows(["the", "dog"], ["the", "big", "dog", "ran"]) == ["ran"]
    assert follows(["the", "big", "dog"], ["the", "dog", "ran"]) == ["ran"]
    assert follows(["a", "b"], ["a"]) == [] == follows(["a"], [])
    assert follows([], ["a"]) == ["a"]


@pytest.mark.parametrize("seed", range(30))
def test_two_texts_that_begin_alike_are_joined_where_the_shorter_one_ends(seed: int) -> None:
    draw = np.random.default_rng(seed)
    words = [f"w{one}" for one in draw.permutation(30)]
    heard_to, known_to = (int(one) for one in draw.integers(1, 30, 2))
    assert joint(words[:known_to], words[:heard_to]) == (min(known_to, heard_to),) * 2


def test_the_voice_detector_says_the_same_bit_by_bit() -> None:
    pytest.importorskip("silero_vad")
    from speechtune.audio.vad import FRAME_SAMPLES, speech_probabilities
    from speechtune.decoding.streaming.voice import SileroStream

    draw = np.random.default_rng(2)
    waveform = draw.normal(0, 0.1, FRAME_SAMPLES * 60).astype(np.float32) * np.sin(np.arange(30_720) / 3_000) ** 2
    live, found, at = SileroStream(), [], 0
    while at < 60:
        count = int(draw.integers(0, 9))
        found.append(live.hear(waveform[at * FRAME_SAMPLES : (at + count) * FRAME_SAMPLES].astype(np.float32)))
        at += count
    expected = speech_probabilities([waveform.astype(np.float32)])[0]
    np.testing.assert_allclose(np.concatenate(found)[:60], expected, atol=1e-6)
    assert np.ptp(expected) > 1e-3


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_one_segment_without_agreement_has_the_text_of_batch_decoding(
    tiny_model: Any, engine: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(engine)
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path))
    from speechtune.corpus.table import Utterance
    from speechtune.decoding.batched import transcribe
    from speechtune.decoding.guards import for_transcribing
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.streaming.recogniser import FamilyRecogniser

    settings = [f"decoding.engine={engine}", "decoding.max_new_tokens=12", "decoding.streaming.agreement=99"]
    opened = open_model(str(tiny_model), context="fit", overrides=[*settings, "decoding.streaming.max_buffer_s=3"])
    tone = (0.3 * np.sin(np.arange(36_864) * 0.07)).astype(np.float32)
    recogniser = FamilyRecogniser(opened.family, opened.decoding)
    live = StreamingTranscriber(recogniser, opened.decoding.streaming, clock=instant(), voice=AlwaysVoice())
    updates = run(live, tone, 5_000)
    utterance = Utterance(utterance_id="tone", file_name="tone.wav", text="", duration_s=len(tone) / RATE)
    batch = transcribe(opened.family, [utterance], lambda one: tone, for_transcribing(opened.decoding))
    assert live.text == batch[0].text != ""
    assert live.segments == 1 and len(updates) == 3
    given = ["the", "thing", "king"]
    heard = [recogniser.recognise(tone, words, "", draft=True).units for words in (given, given[:1])]
    assert " ".join(heard[0]).startswith("the thing")  # continued, not decoded anew
    free = opened.decoding.streaming.model_copy(update={"force_committed": False})
    unforced = FamilyRecogniser(opened.family, opened.decoding.model_copy(update={"streaming": free}))
    assert unforced.recognise(tone, given, "", draft=True).units == heard[1] != heard[0]


@pytest.mark.parametrize(
    "settings",
    [
        ["refine.use=true", "words=true"],
        ["refine.beams=2", "prompt_words=4", "words=true"],
        ["refine.model=TINY", "max_buffer_s=2"],
        ["agreement=1", "force_committed=false", "step_s=0.3"],
    ],
)
def test_whisper_streams_with_every_setting(tiny_model: Any, settings: list[str]) -> None:
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.streaming.opening import open_streams

    chosen = ["decoding.streaming." + one.replace("TINY", str(tiny_model)) for one in ["max_buffer_s=3", *settings]]
    opened = open_model(str(tiny_model), context="fit", overrides=["decoding.max_new_tokens=8", *chosen])
    live = open_streams(opened)(instant())
    live.voice = LevelVoice()
    audio = np.concatenate([spoken([200, 300, 400, 500, 600, 700], 20_000), spoken([150, 250], 20_000)])
    updates = run(live, audio, 2_000)
    segments = [one.segment for one in updates if one.segment]
    assert live.text == " ".join(word.text for one in segments for word in one.words) != ""
    if opened.decoding.streaming.refine.active:
        assert not any(one.committed for one in updates if one.kind == "draft")
    for one in segments if opened.decoding.streaming.words else []:
        assert [time.text for time in one.times] == [word.text for word in one.words]
        assert all(one.start_s <= time.start_s <= time.end_s <= one.end_s + 1e-6 for time in one.times)


def test_a_ctc_model_streams_and_has_nothing_to_prompt(tmp_path: Any) -> None:
    from tiny_ctc import make_ctc

    from speechtune.decoding.sources import open_model
    from speechtune.decoding.streaming.opening import open_streams

    directory = make_ctc(tmp_path / "ctc", "wav2vec2-layer")
    live = open_streams(open_model(str(directory), overrides=["decoding.streaming.words=true"]))(instant())
    live.voice = LevelVoice()
    audio = np.concatenate([spoken([200, 300, 400, 500], 20_000), spoken([150, 250], 20_000)])
    updates = run(live, audio, 2_000)
    assert live.text == " ".join(word.text for one in updates for word in one.committed)
    assert live.segments == 2
    with pytest.raises(InputError, match="prompt_words does not work with a"):
        open_streams(open_model(str(directory), overrides=["decoding.streaming.prompt_words=4"]))
