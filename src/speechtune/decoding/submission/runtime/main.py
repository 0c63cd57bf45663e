"""Writes ``submission/submission.jsonl``: one prediction for every id of the format file, in its order.

Reads ``data/utterance_metadata.jsonl``, ``data/submission_format.jsonl`` and the audio below ``data/``, relative to the
working directory. Clips are decoded longest first, in batches of similar length. A clip that cannot be read or decoded
gets an empty text and a line in the log. What is finished is kept in ``submission/progress.jsonl`` until the end, so a
second start goes on from there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

BEGAN_S = time.monotonic()
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(path) for path in (HERE, HERE / "vendor") if path.is_dir()]

import numpy as np  # noqa: E402

from speechtune.decoding.submission.runtime.audio import RATE_HZ, load, log_mel, loudest_dbfs, pieces  # noqa: E402
from speechtune.decoding.submission.runtime.engines import open_engine  # noqa: E402
from speechtune.decoding.submission.runtime.text import ByteLevelText  # noqa: E402

DATA, OUT = Path("data"), Path("submission")
AHEAD = 4  # batches read while one is decoded
LOGGED_FAILURES = 50  # the runtimes that are known cut a log after some hundred lines


def log(message: str) -> None:
    """One line of the log."""
    print(message[:290], flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with path.open(encoding="utf-8-sig") as stream:
        return [json.loads(line) for line in stream if line.strip()]


class Package:
    """The model, its settings, and how a batch becomes texts."""

    def __init__(self, folder: Path) -> None:
        self.settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.filters = np.load(folder / "mel_filters.npy")
        self.engine = open_engine(folder / "model", self.settings)
        self.text = ByteLevelText(folder / "model" / "tokenizer.json", self.settings["eot"])
        self.window = self.settings["window_frames"] * 160
        self.margin = round(self.settings["margin_s"] * RATE_HZ)

    def texts(self, waveforms: list[np.ndarray]) -> list[str]:
        """The text of each clip; one that is as good as silent has none, one that is too long is cut."""
        clips = [
            (owner, place, piece)
            for owner, waveform in enumerate(waveforms)
            if loudest_dbfs(waveform) > self.settings["silence_dbfs"]
            for place, piece in enumerate(pieces(waveform, self.window))
        ]
        clips.sort(key=lambda clip: -len(clip[2]))
        found: list[list[tuple[int, str]]] = [[] for _ in waveforms]
        size = self.batch_size(len(clips[0][2])) if clips else 1
        for first in range(0, len(clips), size):
            part = clips[first : first + size]
            for (owner, place, _), text in zip(part, self.decode([piece for *_, piece in part]), strict=True):
                found[owner].append((place, text))
        return [" ".join(text for _, text in sorted(parts) if text) for parts in found]

    def decode(self, waveforms: list[np.ndarray]) -> list[str]:
        """Texts of clips that fit the window."""
        longest = max(map(len, waveforms))
        settings = self.settings
        n_frames = settings["window_frames"]
        if settings["context"] == "fit":
            n_frames = min(n_frames, max(2, 2 * -(-(longest + self.margin) // 320)))
        likely = int(settings["tokens_at_least"] + settings["tokens_per_s"] * longest / RATE_HZ)
        features = log_mel(waveforms, n_frames, self.filters)
        return [self.text(ids) for ids in self.engine.decode(features, min(settings["max_new_tokens"], likely))]

    def batch_size(self, samples: int) -> int:
        """How many clips of that length are decoded together."""
        window_s = (self.window if self.settings["context"] == "full" else samples + self.margin) / RATE_HZ
        return max(1, min(self.settings["batch_size"], int(self.settings["batch_seconds"] / window_s)))


class Journal:
    """What is finished, on the disk; half a line, left by the end of the process, is passed over."""

    def __init__(self, path: Path) -> None:
        self.found: dict[str, str] = {}
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    name, text = json.loads(line)
                    self.found[name] = text
                except ValueError:
                    continue
        self.path = path
        self.stream = path.open("ab")
        self.stream.write(b"\n")

    def add(self, found: dict[str, str]) -> None:
        """Keep texts."""
        self.found.update(found)
        lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in found.items())
        self.stream.write("".join(lines).encode("utf-8", "replace"))
        self.stream.flush()


def audio_path(row: dict[str, Any]) -> Path:
    """Where a clip lies: its ``audio_path`` below ``data/``, or its name below ``data/audio/``."""
    named = Path(str(row.get("audio_path") or f"audio/{row['utterance_id']}.flac"))
    for path in (DATA / named, DATA / "audio" / named.name, named):
        if path.is_file():
            return path
    return DATA / named


def planned(rows: list[dict[str, Any]], package: Package) -> list[list[dict[str, Any]]]:
    """Batches in order of length, longest first: what is too large for the memory shows at once."""
    rows = sorted(rows, key=lambda row: -float(row.get("audio_duration_sec") or 0.0))
    batches = []
    while rows:
        size = package.batch_size(int(float(rows[0].get("audio_duration_sec") or 10.0) * RATE_HZ))
        batches.append(rows[:size])
        rows = rows[size:]
    return batches


def loaded(batches: list[list[dict[str, Any]]]) -> Iterator[tuple[list[dict[str, Any]], list[Any]]]:
    """Each batch with its samples (or the exception of a clip that cannot be read), some read ahead."""

    def read(row: dict[str, Any]) -> Any:
        try:
            return load(audio_path(row))
        except Exception as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        waiting: list[list[Future[Any]]] = []
        for number in range(len(batches)):
            while len(waiting) < AHEAD and number + len(waiting) < len(batches):
                waiting.append([pool.submit(read, row) for row in batches[number + len(waiting)]])
            yield batches[number], [one.result() for one in waiting.pop(0)]


def safely(package: Package, names: list[str], waveforms: list[np.ndarray], failed: list[str]) -> dict[str, str]:
    """The texts of a batch; where it fails, those of its halves, down to the one clip that fails: it has none."""
    if not names:
        return {}
    try:
        return dict(zip(names, package.texts(waveforms), strict=True))
    except Exception as error:
        if len(names) > 1:
            half = len(names) // 2
            first = safely(package, names[:half], waveforms[:half], failed)
            return first | safely(package, names[half:], waveforms[half:], failed)
        note_failure(failed, names[0], error)
        return {names[0]: ""}


def note_failure(failed: list[str], name: str, error: Exception) -> None:
    """A clip that gets an empty text."""
    failed.append(name)
    if len(failed) <= LOGGED_FAILURES:
        log(f"empty text for {name}: {type(error).__name__}: {error}")


def main() -> None:
    """Decode everything and write the file."""
    package = Package(HERE)
    wanted = read_rows(DATA / "submission_format.jsonl")
    key = package.settings["text_key"]
    known = {str(row["utterance_id"]): row for row in read_rows(DATA / "utterance_metadata.jsonl")}
    OUT.mkdir(parents=True, exist_ok=True)
    journal = Journal(OUT / "progress.jsonl")
    rows = [known.get(str(row["utterance_id"]), {"utterance_id": str(row["utterance_id"])}) for row in wanted]
    rest = [row for row in rows if str(row["utterance_id"]) not in journal.found]
    log(f"{len(wanted)} utterances, {len(rows) - len(rest)} finished before; {package.engine.description}")
    load_s, began_s = time.monotonic() - BEGAN_S, time.monotonic()
    failed: list[str] = []
    done, seconds, told = 0, 0.0, 0
    stop_after_s = package.settings["stop_after_s"]
    for batch, waveforms in loaded(planned(rest, package)):
        if stop_after_s and time.monotonic() - BEGAN_S > stop_after_s:
            log(f"out of time: {len(rest) - done} of the shortest utterances get an empty text")
            break
        good: list[tuple[str, np.ndarray]] = []
        texts = {}
        for row, waveform in zip(batch, waveforms, strict=True):
            if isinstance(waveform, Exception):
                note_failure(failed, str(row["utterance_id"]), waveform)
                texts[str(row["utterance_id"])] = ""
            else:
                good.append((str(row["utterance_id"]), waveform))
                seconds += len(waveform) / RATE_HZ
        texts |= safely(package, [name for name, _ in good], [waveform for _, waveform in good], failed)
        journal.add(texts)
        done += len(batch)
        if done * 50 // max(len(rest), 1) > told:
            told = done * 50 // len(rest)
            past_s = time.monotonic() - began_s
            log(f"{done}/{len(rest)}, {past_s:.0f} s, about {past_s / done * (len(rest) - done):.0f} s left")
    lines = (
        json.dumps({"utterance_id": str(row["utterance_id"]), key: journal.found.get(str(row["utterance_id"]), "")},
                   ensure_ascii=False)
        for row in wanted
    )  # fmt: skip
    draft = OUT / "submission.jsonl.draft"
    draft.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
    os.replace(draft, OUT / "submission.jsonl")
    journal.stream.close()
    journal.path.unlink()
    stats = {
        "utterances": done,
        "failed": len(failed),
        "seconds_of_audio": round(seconds, 3),
        "load_s": round(load_s, 3),
        "decode_s": round(time.monotonic() - began_s, 3),
        "engine": package.engine.description,
    }
    log("stats " + json.dumps(stats))


if __name__ == "__main__":
    main()
