"""Transcripts of Whisper, faster-whisper and WhisperX (``segments``) or whisper.cpp (``transcription``) as JSON.

Each segment is an utterance with ``label_source: model``; scores and word times are extra columns (avg_logprob,
no_speech_prob, compression_ratio, temperature, words, word_score_mean). Word times count from the utterance's
beginning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.audio.io import AUDIO_SUFFIXES
from speechtune.corpus.importers.raw import MALFORMED, Importer, RawRow, read_lenient
from speechtune.corpus.importers.spans import Cue, cue_rows, media_of, no_folders, transcripts
from speechtune.corpus.languages import code_of_language

NAME = "whisper_json"
NO_WORDS = "no words"
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SCORES = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")


def recognises(source: str) -> bool:
    """A .json with timed segments, or a folder without a metadata table whose first .json is one."""
    path = Path(source)
    if path.is_file():
        return path.suffix.lower() == ".json" and _segments(path) is not None
    if any((path / name).is_file() for name in _TABLES):
        return False
    files = (one for depth in ("", "*/", "*/*/") for one in sorted(path.glob(f"{depth}*.json")) if one.name[0] != ".")
    return _segments(next(files, Path())) is not None


def _segments(path: Path) -> tuple[dict[str, Any], list[Any]] | None:
    if not path.is_file():
        return None
    try:
        whole = json.loads(read_lenient(path))
    except ValueError:
        return None
    found = (whole.get("segments") or whole.get("transcription")) if isinstance(whole, dict) else None
    return (whole, found) if isinstance(found, list) and found and isinstance(found[0], dict) else None


def read(source: str) -> Iterator[RawRow]:
    """One row per segment of every file.

    Raises:
        InputError: there is no .json.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    for path in transcripts(source, (".json",), "Whisper transcripts"):
        parsed = _segments(path)
        if parsed is None:
            problem = (MALFORMED, "it is not JSON with a list of segments")
            yield RawRow(where=str(path), audio=media_of(path), name=path.stem, problem=problem)
            continue
        whole, segments = parsed
        named = path.with_name(path.stem) if Path(path.stem).suffix.lower() in AUDIO_SUFFIXES else path
        audio = media_of(path, str(whole.get("audio_path") or ""), named.name)  # whisper.cpp writes x.wav.json
        yield from cue_rows(_cues(path, whole, segments), audio, root, overlaps_are_faults=False)


def _cues(path: Path, whole: dict[str, Any], segments: list[Any]) -> Iterator[Cue]:
    result = whole.get("result")
    language = whole.get("language") or (result.get("language") if isinstance(result, dict) else None)
    for number, segment in enumerate(segments, start=1):
        cue = Cue(where=f"{path} segment {number}", text="", start_s=None, end_s=None)
        try:
            cue.start_s, cue.end_s = _times(segment)
            cue.text = str(segment["text"]).strip()
        except (KeyError, TypeError, ValueError):
            cue.problem = (MALFORMED, "it has no start, end and text")
            yield cue
            continue
        cue.columns = {"label_source": "model"}
        cue.columns |= {name: segment[name] for name in _SCORES if segment.get(name) is not None}
        if isinstance(language, str):
            cue.columns["language"] = code_of_language(language) or language
        if words := _words(segment.get("words"), cue.start_s):
            cue.columns["words"] = words
            scores = [word["score"] for word in words if "score" in word]
            if scores:
                cue.columns["word_score_mean"] = round(sum(scores) / len(scores), 6)
        if segment.get("speaker"):
            cue.speaker = f"{path.stem}-{segment['speaker']}"
        if not cue.text:
            cue.skip = (NO_WORDS, "its text is empty")
        yield cue


def _times(segment: dict[str, Any]) -> tuple[float, float]:
    offsets = segment.get("offsets")
    if isinstance(offsets, dict):  # whisper.cpp, milliseconds
        return float(offsets["from"]) / 1000, float(offsets["to"]) / 1000
    return float(segment["start"]), float(segment["end"])


def _words(words: Any, origin_s: float) -> list[dict[str, Any]]:
    """Word, start_s and end_s within the utterance, and score; WhisperX leaves times out where it could not align."""
    found = []
    for word in words if isinstance(words, list) else []:
        if not isinstance(word, dict) or "word" not in word:
            continue
        row: dict[str, Any] = {"word": str(word["word"]).strip()}
        for name, key in (("start_s", "start"), ("end_s", "end")):
            if isinstance(word.get(key), (int, float)):
                row[name] = round(word[key] - origin_s, 3)
        score = word.get("score", word.get("probability"))
        if isinstance(score, (int, float)):
            row["score"] = float(score)
        found.append(row)
    return found


IMPORTER = Importer(NAME, recognises, read, no_folders)
