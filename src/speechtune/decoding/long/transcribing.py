"""Transcripts of recordings of any length: short ones as they are, long ones as ``decoding.long`` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples, load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.segmentation.cuts import Span, TimedWord
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.batched import transcribe, transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guards import active_guard
from speechtune.decoding.long.holes import Again, fill_holes
from speechtune.decoding.long.merge import Heard, merge_windows
from speechtune.decoding.long.pieces import (
    Piece,
    PiecePlan,
    Scan,
    heard_together,
    plan_chunks,
    plan_pieces,
    scan,
)
from speechtune.decoding.long.recording import Recording
from speechtune.decoding.long.sequential import Segment, walk, whisper_decoder
from speechtune.decoding.long.skipped import parts_of, say_more
from speechtune.decoding.long.timing import WordTimer, is_single_whisper, word_rows
from speechtune.decoding.searching import Searcher
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Family

_LONGEST_CHUNK_S = 30.0
_PAUSE_S = 0.8
"""Chunks have no sentences: a pause as long as this ends a segment (own choice)."""
_LONG_PAUSE_S = 2.0
"""faster-whisper's ``min_silence_duration_ms``."""
_LONGEST_SEGMENT_S = 15.0
_TRIED_FIRST = 2
"""Pieces: a model that stops early does so in the slowest ones (own choice)."""
_EARLY_STOP_S = 3.0
"""A text that ends so long before its chunk may have stopped early."""


def transcribe_all(family: Family, corpus: Corpus, config: DecodingConfig) -> list[Transcript]:
    """Transcripts of every utterance, in the corpus's order, however long each is.

    The pieces of all recordings are decoded together, in batches of similar length, each read when its turn comes.

    Raises:
        InputError: an audio file cannot be read, or the model cannot do what ``decoding.long`` says.
    """
    limit_s = family.limits.max_audio_s
    long = [one for one in corpus.utterances if one.duration_s > limit_s]
    if not long:
        return _with_words(family, corpus, transcribe_corpus(family, corpus, config), config)
    recordings = {one.utterance_id: Recording.of(corpus.path_of(one), one) for one in long}
    if config.long == "sequential":
        found = {name: _sequential(family, name, one, config) for name, one in recordings.items()}
        short = corpus.subset(lambda one: one.utterance_id not in recordings)
        if short.utterances:
            said = _with_words(family, short, transcribe_corpus(family, short, config), config)
            found |= {one.utterance_id: one for one in said}
        return [found[one.utterance_id] for one in corpus.utterances]
    scans: dict[str, Scan] = {}
    if config.long == "vad":
        scans = {name: scan(one, title=f"listen to {one.path.name}") for name, one in recordings.items()}
        plan = _plan(family, config)
        most = round(plan.longest_s * SAMPLE_RATE_HZ) if _leaves_out_pauses(config) else 0
        planned = {
            name: heard_together(plan_pieces(scans[name], one.length, plan), most) for name, one in recordings.items()
        }
    else:
        planned = {name: _each(_chunk_spans(family, one, config)) for name, one in recordings.items()}
    pieces = _Pieces(corpus, recordings, planned)
    transcripts = transcribe(family, pieces.utterances, pieces.load, config)
    by_owner: dict[str, list[tuple[Piece, Transcript]]] = {one.utterance_id: [] for one in corpus.utterances}
    for (owner, piece), transcript in zip(pieces.owners, transcripts, strict=True):
        by_owner[owner].append((piece, transcript))
    if scans:
        _decode_skipped(family, corpus, recordings, by_owner, scans, config)
    timer = WordTimer(family, config.context) if config.long == "chunks" or config.long_form.words else None
    join: Any = _join_pieces
    if config.long == "chunks":
        assert timer is not None
        fill = _fill_of(family, config, timer)
        join = partial(_join_chunks, again=_with_timestamps(family, config), fill=fill)
    results = []
    for utterance in track(corpus.utterances, "join"):
        parts = by_owner[utterance.utterance_id]
        recording = recordings.get(utterance.utterance_id)
        if recording is None:
            results.append(replace(parts[0][1], utterance_id=utterance.utterance_id))
        else:
            results.append(join(utterance.utterance_id, recording, parts, timer))
    return _with_words(family, corpus, results, config)


def _with_words(
    family: Family, corpus: Corpus, transcripts: list[Transcript], config: DecodingConfig
) -> list[Transcript]:
    """With ``long_form.words``, short recordings have one segment with the times of their words."""
    if not config.long_form.words:
        return transcripts
    timer = WordTimer(family, config.context)
    for utterance, one in zip(corpus, track(transcripts, "word times"), strict=True):
        if one.segments or not one.text or utterance.duration_s > family.limits.max_audio_s:
            continue
        waveform = load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        segment = _segment(0.0, len(waveform) / SAMPLE_RATE_HZ, one)
        one.segments = [{**segment, "words": word_rows(timer.times(waveform, one.text))}]
    return transcripts


class _Pieces:
    """All that is decoded: short utterances whole, long ones in pieces; each reads itself when it is asked."""

    def __init__(self, corpus: Corpus, recordings: dict[str, Recording], planned: dict[str, list[Piece]]) -> None:
        self.corpus, self.recordings = corpus, recordings
        self.owners: list[tuple[str, Piece]] = []
        self.utterances: list[Utterance] = []
        self._place: dict[str, int] = {}
        for one in corpus.utterances:
            own = planned.get(one.utterance_id, _each([(0, round(one.duration_s * SAMPLE_RATE_HZ))]))
            for number, piece in enumerate(own):
                name = f"{one.utterance_id}\u241f{number:06d}"
                self._place[name] = len(self.owners)
                self.owners.append((one.utterance_id, piece))
                seconds = one.duration_s if one.utterance_id not in recordings else piece.heard / SAMPLE_RATE_HZ
                self.utterances.append(
                    Utterance(
                        utterance_id=name,
                        file_name=one.file_name,
                        text="",
                        duration_s=seconds,
                        start_s=one.start_s,
                        end_s=one.end_s,
                        language=one.language,
                    )
                )

    def load(self, utterance: Utterance) -> Samples:
        """The samples of a piece."""
        owner, piece = self.owners[self._place[utterance.utterance_id]]
        if owner in self.recordings:
            return piece.read(self.recordings[owner])
        return load_audio(self.corpus.path_of(utterance), utterance.start_s, utterance.end_s)


def _each(spans: Sequence[Span]) -> list[Piece]:
    """Every span as a piece of its own."""
    return [Piece((span,)) for span in spans]


def _leaves_out_pauses(config: DecodingConfig) -> bool:
    """Whether pieces are heard right after one another, in one window."""
    wanted = config.long_form.leave_out_pauses
    return config.context == "full" if wanted is None else wanted


def vad_spans(family: Family, recording: Recording, config: DecodingConfig) -> list[Span]:
    """The spans that ``decoding.long: vad`` decodes, in samples.

    Raises:
        AudioError: the file cannot be read.
        InputError: the detector's package is not installed.
    """
    return plan_pieces(scan(recording), recording.length, _plan(family, config))


def _plan(family: Family, config: DecodingConfig) -> PiecePlan:
    window_s = family.limits.max_audio_s
    long_form = config.long_form
    default_s = max(window_s - 2.0, window_s / 2) if config.context == "full" else 15.0
    return PiecePlan(
        target_s=min(long_form.piece_s or default_s, window_s),
        longest_s=min(window_s, _LONGEST_CHUNK_S),
        max_pause_s=long_form.max_pause_s or (0.0 if _leaves_out_pauses(config) else _LONG_PAUSE_S),
        margin_s=long_form.margin_s,
    )


def _decode_skipped(
    family: Family,
    corpus: Corpus,
    recordings: dict[str, Recording],
    by_owner: dict[str, list[tuple[Piece, Transcript]]],
    scans: dict[str, Scan],
    config: DecodingConfig,
) -> None:
    """Pieces whose text is too short for their speech are replaced by their parts, where these say more.

    At full context every part costs a whole window: only the slowest pieces are tried there, and the others if one of
    these said more. Stopping early is a habit of the model, not of a recording.
    """
    plan = replace(_plan(family, config), max_pause_s=config.long_form.max_pause_s or _LONG_PAUSE_S)
    parts = {
        (name, place): spans
        for name, found in scans.items()
        for place, spans in enumerate(parts_of(by_owner[name], found, plan))
        if spans
    }
    stands: dict[tuple[str, int], list[tuple[Piece, Transcript]]] = {}

    def decode(chosen: list[tuple[str, int]]) -> None:
        planned = {name: _each([span for key in chosen if key[0] == name for span in parts[key]]) for name in scans}
        pieces = _Pieces(corpus.subset(lambda one: bool(planned.get(one.utterance_id))), recordings, planned)
        if not pieces.utterances:
            return
        found = iter(transcribe(family, pieces.utterances, pieces.load, config, "decode in parts"))
        names = [one.utterance_id for one in pieces.corpus]
        of_piece = {key: [next(found) for _ in parts[key]] for name in names for key in chosen if key[0] == name}
        for key, said in of_piece.items():
            before = by_owner[key[0]][key[1]][1]
            if say_more(before, said, parts[key], config.fallback):
                for one in said:
                    one.flags = [*one.flags, "stopped-early"]
                stands[key] = list(zip(_each(parts[key]), said, strict=True))

    if config.context == "full":

        def letters_per_sample(key: tuple[str, int]) -> float:
            piece, one = by_owner[key[0]][key[1]]
            return len(one.text) / piece.heard

        slowest = sorted(parts, key=letters_per_sample)
        decode(sorted(slowest[:_TRIED_FIRST]))
        if stands:
            decode(sorted(slowest[_TRIED_FIRST:]))
    else:
        decode(list(parts))
    for name in scans:
        rows = [stands.get((name, place), [row]) for place, row in enumerate(by_owner[name])]
        by_owner[name] = [one for row in rows for one in row]


def _chunk_spans(family: Family, recording: Recording, config: DecodingConfig) -> list[Span]:
    chunk_s = min(config.long_form.chunk_s or _LONGEST_CHUNK_S, family.limits.max_audio_s)
    overlap_s = config.long_form.overlap_s or chunk_s / 6
    if overlap_s > chunk_s / 2:
        raise InputError(
            f"decoding.long_form.overlap_s is {overlap_s:g} and a chunk is {chunk_s:g} s long: overlap at most half of "
            "it"
        )
    return plan_chunks(recording.length, chunk_s, overlap_s)


def _join_pieces(
    name: str, recording: Recording, parts: Sequence[tuple[Piece, Transcript]], timer: WordTimer | None
) -> Transcript:
    """One segment for each piece that says something; with times of words, one for each of its spans."""
    segments = []
    for piece, one in parts:
        if not one.text and not one.interventions:
            continue
        whole = _segment(piece.start / SAMPLE_RATE_HZ, piece.end / SAMPLE_RATE_HZ, one)
        if timer is None or not one.text:
            segments.append(whole)
            continue
        by_span: dict[int, list[TimedWord]] = {}
        for word in timer.times(piece.read(recording), one.text):
            number, start_s = piece.place_s(word.start_s)
            most_s = piece.spans[number][1] / SAMPLE_RATE_HZ
            end_s = min(start_s + word.end_s - word.start_s, most_s)  # a word does not go on beyond a pause
            by_span.setdefault(number, []).append(replace(word, start_s=start_s, end_s=end_s))
        for number, words in by_span.items():
            start_s, end_s = (at / SAMPLE_RATE_HZ for at in piece.spans[number])
            own = {"start_s": round(start_s, 3), "end_s": round(end_s, 3), "text": " ".join(it.text for it in words)}
            segments.append({**whole, **own, "words": word_rows(words)})
            whole.pop("interventions", None)  # told once
    return _whole(name, segments, [one for _, one in parts])


def _join_chunks(
    name: str,
    recording: Recording,
    parts: Sequence[tuple[Piece, Transcript]],
    timer: WordTimer | None,
    again: Callable[[Samples], str] | None = None,
    fill: Again | None = None,
) -> Transcript:
    """The merged words, divided into segments at pauses.

    ``again`` decodes chunks whose text ends long before them, ``fill`` stretches that a chunk's text passes over.
    """
    assert timer is not None
    windows = []
    for piece, one in parts:
        start_s, end_s = piece.start / SAMPLE_RATE_HZ, piece.end / SAMPLE_RATE_HZ
        waveform = piece.read(recording)
        words = timer.times(waveform, one.text)
        if again is not None and end_s - start_s - (words[-1].end_s if words else 0.0) > _EARLY_STOP_S:
            other = again(waveform)
            if len(other.split()) > len(words):
                one.text, one.flags = other, [*one.flags, "stopped-early"]
                words = timer.times(waveform, other)
        if fill is not None:
            words, added = fill_holes(words, waveform, fill)
            one.flags = [*one.flags, "hole-filled"] if added else one.flags
        placed = [replace(word, start_s=word.start_s + start_s, end_s=word.end_s + start_s) for word in words]
        windows.append(Heard(start_s, end_s, placed))
    segments: list[dict[str, Any]] = []
    group: list[Any] = []
    for word in merge_windows(windows):
        pause = bool(group) and word.start_s - group[-1].end_s >= _PAUSE_S
        if group and (pause or word.end_s - group[0].start_s > _LONGEST_SEGMENT_S):
            segments.append(_of_words(group))
            group = []
        group.append(word)
    if group:
        segments.append(_of_words(group))
    return _whole(name, segments, [one for _, one in parts])


def _fill_of(family: Family, config: DecodingConfig, timer: WordTimer) -> Again:
    """Decodes a stretch as everything else is; a text as unlikely as Whisper's fallback refuses is not believed."""
    searcher, guard = Searcher(family, config), active_guard(family, config)
    least = config.fallback.log_prob

    def words(waveform: Samples) -> Sequence[TimedWord]:
        n_frames = family.context_frames(len(waveform) / SAMPLE_RATE_HZ + config.margin_s, config.context)
        found = searcher.transcripts(["hole"], [waveform], n_frames)
        (one,) = found if guard is None else guard.watch(found, [waveform], n_frames)
        if least is not None and one.log_prob is not None and one.log_prob < least:
            return []
        return timer.times(waveform, one.text)

    return words


def _with_timestamps(family: Family, config: DecodingConfig) -> Callable[[Samples], str] | None:
    """Decodes with timestamps, for Whisper: without them it may stop after a sentence that began before the window."""
    if not is_single_whisper(family):
        return None
    from speechtune.decoding.long.timestamps import decode_window

    whisper: Any = family
    return lambda waveform: decode_window(whisper, waveform, [], config).text


def _of_words(words: Sequence[Any]) -> dict[str, Any]:
    text = " ".join(word.text for word in words)
    return {
        "start_s": round(words[0].start_s, 3),
        "end_s": round(words[-1].end_s, 3),
        "text": text,
        "words": word_rows(words),
    }


def _segment(start_s: float, end_s: float, one: Transcript) -> dict[str, Any]:
    segment: dict[str, Any] = {"start_s": round(start_s, 3), "end_s": round(end_s, 3), "text": one.text}
    facts = {"log_prob": one.log_prob, "no_speech_prob": one.no_speech_prob, "flags": one.flags}
    facts["interventions"] = one.interventions  # type: ignore[assignment]
    return segment | {name: value for name, value in facts.items() if value not in (None, [])}


def _whole(name: str, segments: list[dict[str, Any]], parts: Sequence[Transcript]) -> Transcript:
    scores = [one.log_prob for one in parts if one.log_prob is not None]
    return Transcript(
        utterance_id=name,
        text=" ".join(one["text"] for one in segments if one["text"]),
        log_prob=round(float(np.mean(scores)), 4) if scores else None,
        flags=sorted({name for one in parts for name in one.flags}),
        segments=segments,
        interventions=[row for one in parts for row in one.interventions],
    )


def _sequential(family: Family, name: str, recording: Recording, config: DecodingConfig) -> Transcript:
    whisper: Any = family
    decode = whisper_decoder(family, config)
    timer = WordTimer(family, config.context) if config.long_form.words else None
    window_s = family.limits.max_audio_s
    family.model.eval()
    segments = []
    parts = []
    found = walk(
        recording,
        decode,
        whisper.first_timestamp,
        window_s,
        config.fallback,
        config.long_form.condition_on_previous_text,
        f"transcribe {Path(recording.path).name}",
    )
    for one in found:
        part = _of_segment(one, family)
        if not part.text:
            continue
        segment = _segment(one.start_s, one.end_s, part)
        if timer is not None:
            waveform = recording.read(one.start_s, one.end_s)
            segment["words"] = word_rows(timer.times(waveform, part.text), one.start_s)
        segments.append(segment)
        parts.append(part)
    return _whole(name, segments, parts)


def _of_segment(one: Segment, family: Family) -> Transcript:
    hypothesis = one.window.hypothesis
    flags = ["truncated"] if hypothesis.truncated else []
    flags += [f"fallback-{one.window.temperature:g}"] if one.window.temperature > 0 else []
    flags += ["fallback-failed"] if one.window.failed else []
    return Transcript(
        utterance_id="",
        text=family.text(one.tokens),
        log_prob=round(hypothesis.log_prob, 4),
        no_speech_prob=None if hypothesis.no_speech_prob is None else round(hypothesis.no_speech_prob, 6),
        flags=flags,
    )
