"""Aligners: exact paths against brute force, anchors and boundaries on made-up texts, the whole with tiny models."""

from __future__ import annotations

import itertools
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import energy_spans
from speechtune.corpus.segmentation.pieces import SegmentationConfig, segment
from speechtune.corpus.table import Utterance
from speechtune.decoding.anchoring import anchor_windows, boundary_choices, letters, place_boundaries
from speechtune.decoding.ctc_alignment import CtcAligner, ctc_align
from speechtune.decoding.forced_alignment import (
    WhisperAligner,
    open_aligner,
    plan_windows,
    spelled_for_model,
    without_loops,
)
from speechtune.decoding.word_times import WhisperTimer, median_filter, monotone_path, token_starts
from speechtune.models.family import Example
from speechtune.models.whisper import WhisperFamily

RATE = 16_000


def collapsed(path: tuple[int, ...], blank: int) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != blank]


@pytest.mark.parametrize("seed", range(40))
def test_ctc_path_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, vocabulary, blank = int(rng.integers(1, 7)), 3, int(rng.integers(0, 3))
    log_probs = np.log(rng.dirichlet(np.ones(vocabulary), size=frames))
    tokens = [int(one) for one in rng.choice([v for v in range(vocabulary) if v != blank], size=rng.integers(0, 4))]
    possible = [
        (sum(log_probs[frame, token] for frame, token in enumerate(path)), path)
        for path in itertools.product(range(vocabulary), repeat=frames)
        if collapsed(path, blank) == tokens
    ]
    if not possible:
        with pytest.raises(ValueError, match="frames"):
            ctc_align(log_probs, tokens, blank)
        return
    best, path = max(possible)
    found = ctc_align(log_probs, tokens, blank)
    assert found.log_prob == pytest.approx(best)
    assert tuple(tokens[one] if one >= 0 else blank for one in found.frames) == path
    for index, token in enumerate(tokens):
        span = range(found.starts[index], found.ends[index])
        assert {path[frame] for frame in span} == {token}
        assert found.token_log_prob[index] == pytest.approx(np.mean([log_probs[frame, token] for frame in span]))


def test_ctc_blocks_do_not_change_a_long_path() -> None:
    """A planted path, far longer than one block, is found frame by frame."""
    rng = np.random.default_rng(0)
    tokens = [int(one) for one in rng.integers(1, 20, size=300)]
    frames = []
    for token in tokens:
        frames += [0] * int(rng.integers(1, 4)) + [token] * int(rng.integers(1, 5))
    log_probs = np.full((len(frames), 20), -8.0)
    log_probs[np.arange(len(frames)), frames] = -0.01
    found = ctc_align(log_probs, tokens, 0)
    assert [tokens[one] if one >= 0 else 0 for one in found.frames] == frames


def test_ctc_refuses_the_blank_and_foreign_tokens() -> None:
    for token in (0, 3, -1):
        with pytest.raises(ValueError, match="blank or outside"):
            ctc_align(np.zeros((5, 3)), [token], 0)


@pytest.mark.parametrize("seed", range(20))
def test_monotone_path_is_the_cheapest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(5, 9))
    cost = rng.normal(size=(rows, columns))
    options = [(0, *rest) for rest in itertools.combinations(range(1, columns), rows - 1)]

    def price(starts: tuple[int, ...]) -> float:
        return sum(cost[row, a:b].sum() for row, (a, b) in enumerate(pairwise([*starts, columns])))

    assert tuple(monotone_path(cost)) == min(options, key=price)


def test_attention_along_a_staircase_gives_its_steps() -> None:
    starts, frames = [0, 7, 20, 33, 41], 60
    weights = np.full((2, 6, frames), 0.01)
    for row, (a, b) in enumerate(pairwise([*starts, frames])):
        weights[:, row + 1, a:b] = 1.0
    assert np.abs(token_starts(weights, given=1) - starts).max() <= 1


def test_more_tokens_than_frames_are_spread_evenly() -> None:
    assert token_starts(np.ones((1, 9, 4)), given=1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_median_filter_is_a_sorted_middle() -> None:
    values = np.random.default_rng(0).normal(size=(2, 20))
    assert median_filter(values, 7)[1, 9] == sorted(values[1, 6:13])[3]
    assert median_filter(values[:, :3], 7) is not None and np.array_equal(
        median_filter(values[:, :3], 7), values[:, :3]
    )


def test_letters_keep_what_both_sides_share() -> None:
    assert letters("Don't,") == letters("DONT") == "dont"
    assert letters("कि") == "कि"
    assert letters("--") == ""


WORDS = [f"{a}{b}{c}" for a in "bdgkmt" for b in "aeiou" for c in ("lo", "rin", "ves")]


def garbled(words: list[str], rng: np.random.Generator, rate: float) -> list[str]:
    """Words lost, exchanged and inserted, each with a third of ``rate``."""
    result = []
    for word in words:
        draw = rng.random()
        if draw < rate / 3:
            continue
        result.append(str(rng.choice(WORDS)) if draw < 2 * rate / 3 else word)
        if rng.random() < rate / 3:
            result.append(str(rng.choice(WORDS)))
    return result


@pytest.mark.parametrize("seed", range(6))
def test_boundaries_are_found_although_half_the_words_are_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [str(one) for one in rng.choice(WORDS, size=400)]
    truth = [0, *sorted(int(one) for one in rng.choice(range(5, 395), 19, replace=False)), 400]
    hypotheses = [" ".join(garbled(words[a:b], rng, 0.5)) for a, b in pairwise(truth)]
    anchors = anchor_windows(words, hypotheses)
    anchored = anchors[anchors >= 0]
    assert (np.diff(anchored) >= 0).all()
    choices = boundary_choices(anchors, [b - a for a, b in pairwise(truth)])
    calls: list[tuple[int, int]] = []

    def score(window: int, first: int, last: int) -> np.ndarray:
        """A word that the window says is likely, another one is not, and so is one left out."""
        calls.append((window, first))
        low, high = truth[window], truth[window + 1]
        ends = np.arange(first, last + 1)
        inside = np.clip(np.minimum(ends, high) - max(first, low), 0, None)
        return -1.0 * inside - 6.0 * (ends - first - inside) - 4.0 * (high - low - inside)

    assert place_boundaries(choices, score) == truth
    assert len(calls) < 20 * 60


def test_boundaries_outside_their_range_are_reached_by_widening() -> None:
    truth = [0, 30, 60]

    def score(window: int, first: int, last: int) -> np.ndarray:
        ends = np.arange(first, last + 1)
        return -np.abs(ends - truth[window + 1]) - abs(first - truth[window]) + 0.0

    assert place_boundaries([range(0, 1), range(10, 15), range(60, 61)], score) == truth


def test_no_possible_assignment_is_an_error() -> None:
    with pytest.raises(ValueError, match="more words"):
        place_boundaries([range(0, 1), range(5, 6)], lambda w, a, b: np.full(b - a + 1, -np.inf))


def test_a_window_without_any_anchor_is_placed_in_proportion() -> None:
    anchors = np.full(300, -1)
    anchors[:100], anchors[200:] = 0, 3
    choices = boundary_choices(anchors, [20.0, 20.0, 20.0, 20.0])
    assert choices[0] == range(0, 1) and choices[-1] == range(300, 301)
    assert 150 in choices[2]
    assert max(map(len, choices)) <= 33


def test_loops_are_cut() -> None:
    assert without_loops("sorry i am " * 9 + "done") == "sorry i am " * 3 + "done"
    assert without_loops("no no no yes") == "no no no yes"
    assert without_loops("a " * 50) == "a a a"


def test_capitals_alone_are_lowered_and_mixed_case_is_kept() -> None:
    assert spelled_for_model(["WE", "CALL"]) == ["we", "call"]
    assert spelled_for_model(["We", "CALL"]) == ["We", "CALL"]


@pytest.mark.parametrize("seed", range(5))
def test_windows_cover_the_speech_and_end_in_pauses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans, at = [], 0.0
    while at < 120:
        at += float(rng.choice([0.3, 0.5, 1.0, 7.0]))
        length = float(rng.uniform(0.5, 26.0 if rng.random() < 0.1 else 6.0))
        spans.append((round(at * RATE), round((at + length) * RATE)))
        at += length
    waveform = rng.standard_normal(round((at + 1) * RATE)).astype(np.float32)
    windows = plan_windows(waveform, spans, 20.0)
    assert all(0 <= one.start < one.end <= len(waveform) for one in windows)
    assert all(left.end <= right.start for left, right in pairwise(windows))
    assert all(one.end - one.start <= 21 * RATE + 1 for one in windows)
    for start, end in spans:
        covered = sum(max(0, min(end, one.end) - max(start, one.start)) for one in windows)
        assert covered == end - start
        if end - start <= 20 * RATE:  # only what is longer than a window may be cut
            assert all(not start < edge.end < end for edge in windows)
    assert sum(one.speech_s for one in windows) == pytest.approx(sum(b - a for a, b in spans) / RATE)


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    found = WhisperFamily.load(tiny_model)
    found.model.eval()
    return found


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_word_tokens_are_the_tokens_of_the_text(family: WhisperFamily) -> None:
    words = ["the", "thing,", "isn't", "12.5", "Ünder", "nothing!"]
    joined = [token for ids in WhisperTimer(family).tokens(words) for token in ids]
    expected, prompt = family.tokens(" ".join(words))
    assert joined == expected[prompt:-1]


def test_prefix_scores_are_the_models_own_loss(family: WhisperFamily) -> None:
    timer, waveform = WhisperTimer(family), noise(2.0)
    words = ["the", "thing", "in", "the", "inn", "sings"]
    texts = [words, words[2:], [], words[:1]]
    scores = timer.prefix_scores(timer.encode(waveform), texts)
    for text, row in zip(texts, scores, strict=True):
        assert row.shape == (len(text) + 1,)
        for count in range(len(text) + 1):
            tokens, prompt = family.tokens(" ".join(text[:count]))
            if count == 0:
                tokens = [*tokens[:prompt], family.eot]
            batch = family.collate([Example(waveform, tokens, prompt)], family.context_frames(2.2, "full"))
            with torch.inference_mode():
                loss = family.model(**batch, num_items_in_batch=1).loss
            assert row[count] == pytest.approx(-float(loss), abs=1e-3)


def test_a_text_beyond_the_decoder_has_no_probability(family: WhisperFamily) -> None:
    timer = WhisperTimer(family)
    words = ["thing"] * 60
    (row,) = timer.prefix_scores(timer.encode(noise(2.0)), [words])
    fits = timer.max_tokens // len(timer.tokens(["thing"])[0])
    assert np.isfinite(row[: fits + 1]).all() and np.isinf(row[fits + 1 :]).all()
    with pytest.raises(ValueError, match="do not fit a decoder"):
        timer.times(timer.encode(noise(2.0)), words)


def test_watching_the_attention_changes_nothing(family: WhisperFamily) -> None:
    timer, waveform = WhisperTimer(family), noise(2.0)
    before = family.model.model.decoder.layers[-1].encoder_attn.config._attn_implementation  # type: ignore[union-attr]
    first = timer.times(timer.encode(waveform), ["the", "thing"])
    second = timer.times(timer.encode(waveform), ["the", "thing"])
    assert first == second
    layer = family.model.model.decoder.layers[-1].encoder_attn  # type: ignore[union-attr]
    assert layer.config._attn_implementation == before and not layer._forward_hooks


@pytest.mark.parametrize("seconds", [1.0, 2.9, 14.0])
def test_every_word_comes_back_in_order(family: WhisperFamily, seconds: float) -> None:
    waveform = noise(seconds)
    for at in np.arange(0.9, seconds - 0.3, 1.1):
        waveform[round(at * RATE) : round((at + 0.3) * RATE)] *= 0.001
    text = " ".join(f"THE {word.upper()}" for word in WORDS[: int(2 * seconds)])
    aligner = WhisperAligner(family, detector="energy")
    words = aligner.align(waveform, text, "en")
    assert [word.text for word in words] == text.split()
    assert all(0 <= word.start_s <= word.end_s <= seconds + 0.01 for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)
    assert aligner.align(waveform, "  ", "en") == []
    if seconds > 3:
        utterance = Utterance(utterance_id="u", file_name="u.wav", text=text, duration_s=seconds, language="en")
        config = SegmentationConfig(mode="align", max_s=3.0, target_s=2.0)
        pieces = segment(utterance, waveform, config, aligner)
        assert " ".join(piece.text for piece in pieces) == text
        assert all(round(one.end_s * RATE) - round(one.start_s * RATE) <= 3 * RATE for one in pieces)


def test_texts_that_cannot_fit_and_unknown_languages_are_named(family: WhisperFamily) -> None:
    aligner = WhisperAligner(family, detector="energy")
    with pytest.raises(InputError, match=r"300 words does not fit a recording of 2\.0 s"):
        aligner.align(noise(2.0), "thing " * 300, None)
    with pytest.raises(InputError, match=r"5000 words does not fit a recording of 8\.0 s"):
        aligner.align(noise(8.0), "thing " * 5000, None)
    with pytest.raises(InputError, match="knows English only"):
        aligner.align(noise(2.0), "chose", "fr")
    with pytest.raises(InputError, match="no speech in it"):
        aligner.align(np.zeros(8 * RATE, np.float32), "thing", None)


@pytest.fixture(scope="module")
def ctc_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random wav2vec 2.0 of 20 ms frames with an upper-case alphabet."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    directory = tmp_path_factory.mktemp("ctc")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (directory / "vocab.json").write_text(json.dumps({one: i for i, one in enumerate(letters)}))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8, 8, 8, 8, 8, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(directory)
    Wav2Vec2CTCTokenizer(str(directory / "vocab.json")).save_pretrained(directory)
    Wav2Vec2FeatureExtractor().save_pretrained(directory)
    return directory


def test_a_ctc_model_aligns_every_word(ctc_model: Path) -> None:
    aligner = open_aligner(str(ctc_model))
    assert isinstance(aligner, CtcAligner)
    waveform = noise(47.0)
    log_probs, frame_s = aligner.log_probs(waveform)
    assert log_probs.shape[1] == 32 and frame_s == pytest.approx(0.02, rel=0.02)
    assert np.allclose(np.exp(log_probs).sum(1), 1, atol=1e-4)
    words = aligner.align(waveform, "we call it 17 bear — isn't it", "en")
    assert [word.text for word in words] == ["we", "call", "it", "17", "bear", "—", "isn't", "it"]
    assert [word.confidence == 0 for word in words] == [False, False, False, True, False, True, False, False]
    assert all(left.start_s <= right.start_s for left, right in pairwise(words))
    with pytest.raises(InputError, match="does not fit"):
        aligner.align(noise(0.5), "word " * 100, None)


def test_letters_take_the_vocabularys_case_and_delimiters_stand_between(ctc_model: Path) -> None:
    aligner = open_aligner(str(ctc_model))
    assert isinstance(aligner, CtcAligner)
    names = {number: letter for letter, number in aligner.vocabulary.items()}
    tokens, owner = aligner.encode(["Ab", "7", "c"])
    assert [names[one] for one in tokens] == ["A", "B", "|", "C"]
    assert owner == [0, 0, -1, 2]


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot align"):
        open_aligner(str(tmp_path))


def test_a_multilingual_model_wants_a_language(tmp_path: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(tmp_path, multilingual=True, positions=150, text_positions=64)
    aligner = open_aligner(str(tmp_path))
    with pytest.raises(InputError, match="needs a language"):
        aligner.align(noise(1.0), "the thing", None)
    assert len(aligner.align(noise(1.0), "the thing", "de")) == 2


@pytest.mark.slow
def test_real_speech_is_found_where_it_is(shared_speech: Path) -> None:
    """Two readings with 4 s of silence between them: the words of each lie on its side."""
    from speechtune.audio.io import load_audio
    from speechtune.models.obtaining import resolve_model

    try:
        resolve_model("whisper-tiny.en")
    except InputError as error:
        pytest.skip(f"whisper-tiny.en is not here ({error})")
    table = [json.loads(line) for line in (shared_speech / "long_form" / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in table if row["file_name"].startswith(("sonnet_1.", "sonnet_2."))]
    first, second = (load_audio(shared_speech / "long_form" / row["file_name"]) for row in rows)
    waveform = np.concatenate([first, np.zeros(4 * RATE, np.float32), second])
    counts = [len(row["text"].split()) for row in rows]
    aligner = open_aligner("whisper-tiny.en")
    assert isinstance(aligner, WhisperAligner)
    aligner.detector = "energy"
    words = aligner.align(waveform, " ".join(row["text"] for row in rows), "en")
    assert len(words) == sum(counts)
    sounds = energy_spans(second, min_silence_s=1.0)
    assert words[counts[0] - 1].end_s <= len(first) / RATE + 0.1
    assert words[counts[0]].start_s == pytest.approx((len(first) + 4 * RATE + sounds[0][0]) / RATE, abs=0.3)
