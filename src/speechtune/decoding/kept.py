"""Transcripts of one model kept on the disk while they are made, with what they cost: interrupted work goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.searching import Searcher
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.transcript import Transcript

KEY, PARTS = "key.json", "parts"
_FLUSH_S = 20.0

Open = Callable[[], OpenedModel]


@dataclass(frozen=True, slots=True)
class Spent:
    """What some utterances took: ``decode_s`` for ``audio_s`` (reading audio included, loading the model left out).

    ``memory_bytes`` is the peak of the accelerator (allocated by torch) or, on a processor, of this process.
    """

    decode_s: float
    audio_s: float
    memory_bytes: int | None


@dataclass(slots=True)
class Kept:
    """What a model said and needed; ``parts`` are the ids that were written together and what they took."""

    transcripts: dict[str, Transcript] = field(default_factory=dict)
    parts: list[tuple[set[str], Spent]] = field(default_factory=list)
    parameters: int | None = None
    device: str | None = None
    context: str | None = None

    def of(self, utterances: Iterable[Utterance]) -> list[Transcript]:
        """The transcripts of these utterances, which must have been made."""
        return [self.transcripts[one.utterance_id] for one in utterances]

    def spent(self, utterances: Iterable[Utterance]) -> Spent:
        """What these utterances took, as far as they were written by themselves; the same however often it is asked."""
        ids = {one.utterance_id for one in utterances}
        parts = [spent for names, spent in self.parts if names <= ids]
        return Spent(
            sum(one.decode_s for one in parts),
            sum(one.audio_s for one in parts),
            max((one.memory_bytes or 0 for one in parts), default=0) or None,
        )


def read_kept(folder: Path, key: dict[str, Any]) -> Kept:
    """What `transcribe_kept` has left in a folder; empty where there is none.

    Args:
        folder: the folder of one model.
        key: what the transcripts depend on (model, settings, fingerprint of the corpus).

    Raises:
        InputError: the folder holds transcripts made from something else, or a damaged file.
    """
    kept = Kept()
    if not (folder / KEY).is_file():
        return kept
    found = read_json(folder / KEY)
    if found != key:
        what = next((name for name in {**key, **found} if key.get(name) != found.get(name)), "key")
        raise InputError(
            f"{folder} holds transcripts made with {what} {found.get(what)!r}, not {key.get(what)!r}: "
            "choose another --out or remove that folder"
        )
    for path in sorted((folder / PARTS).glob("*.json")):
        part = read_json(path)
        names = {row["utterance_id"] for row in part["transcripts"]}
        kept.parts.append((names, Spent(part["decode_s"], part["audio_s"], part["memory_bytes"])))
        kept.parameters, kept.device, kept.context = part["parameters"], part["device"], part["context"]
        for row in part["transcripts"]:
            kept.transcripts[row["utterance_id"]] = Transcript(**row)
    return kept


def transcribe_kept(
    open_it: Open, corpus: Corpus, utterances: Sequence[Utterance], folder: Path, key: dict[str, Any], title: str
) -> Kept:
    """Transcripts of some utterances, made where they are not yet in ``folder``; the model is only opened if needed.

    About every 20 seconds what is done is written, so that an interrupted call goes on from there.

    Raises:
        InputError: as `read_kept`, or the model or an audio file cannot be read.
    """
    from speechtune.audio.io import load_audio

    kept = read_kept(folder, key)
    left = [one for one in utterances if one.utterance_id not in kept.transcripts]
    if not left:
        return kept
    opened = open_it()
    write_json(folder / KEY, key)
    family = opened.family
    family.model.eval()
    searcher = Searcher(family, opened.decoding)
    meter = Meter(str(next(family.model.parameters()).device))
    part = _Part(folder, len(list((folder / PARTS).glob("*.json"))), opened, meter)
    for batch, n_frames in track(plan_batches(family, left, opened.decoding), title):
        began_s = time.perf_counter()
        waveforms = [load_audio(corpus.path_of(one), one.start_s, one.end_s) for one in batch]
        part.rows += searcher.transcripts([one.utterance_id for one in batch], waveforms, n_frames)
        part.decode_s += time.perf_counter() - began_s
        part.audio_s += sum(one.duration_s for one in batch)
        if part.decode_s >= _FLUSH_S:
            part.write()
    part.write()
    return read_kept(folder, key)


@dataclass(slots=True)
class _Part:
    """Transcripts that are not on the disk yet."""

    folder: Path
    number: int
    opened: OpenedModel
    meter: Meter
    rows: list[Transcript] = field(default_factory=list)
    decode_s: float = 0.0
    audio_s: float = 0.0

    def write(self) -> None:
        """Write them and begin anew."""
        if not self.rows:
            return
        facts = {
            "decode_s": self.decode_s,
            "audio_s": self.audio_s,
            "memory_bytes": self.meter.peak_bytes(),
            "parameters": sum(one.numel() for one in self.opened.family.model.parameters()),
            "device": self.meter.device,
            "context": self.opened.decoding.context,
        }
        path = self.folder / PARTS / f"{self.number:06d}.json"
        write_json(path, {**facts, "transcripts": [asdict(one) for one in self.rows]})
        self.number, self.rows, self.decode_s, self.audio_s = self.number + 1, [], 0.0, 0.0


class Meter:
    """The peak of memory from now on: of the accelerator where ``device`` is one, else of this process (Linux)."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self.on_gpu = device.startswith("cuda")
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # 5 resets the peak of the resident set (proc(5))
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak_bytes(self) -> int | None:
        """The highest amount so far; ``None`` where this system does not tell."""
        import torch

        if self.on_gpu:
            return int(torch.cuda.max_memory_allocated())
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        found = next((line for line in lines if line.startswith("VmHWM:")), None)
        return int(found.split()[1]) * 1024 if found else None
