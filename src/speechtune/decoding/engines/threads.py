"""How many threads CTranslate2 gets, found by decoding noise for a second or two, once for each kind of model.

And how a batch is given to it: in as many parts as are decoded at once, long windows encoded one after the other.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.progress import note

CLIPS, FRAMES, TOKENS = 8, 500, 16
"""What is decoded: as many clips, of so many mel frames (5 s), into so many tokens."""
PATIENCE_S = 15.0
"""No further choice is tried once the trials took so long; large models keep the first one then."""
LONG_FRAMES = 1000
"""From so many mel frames (10 s) on, a batch is encoded in pieces on a CPU."""
PIECE_FRAMES = 3000
"""Mel frames of a piece. CTranslate2 holds the attention scores of a whole batch at once, 54 MB for each window of 30 s
in a layer of Whisper tiny (6 x 1500 x 1500 float32); window by window took 12 % less time than eight together."""


def choose_threads(directory: Path, compute_type: str, keep: Path, sizes: dict[str, int]) -> tuple[int, int]:
    """Threads within one batch, and batches at once: the fastest on this machine.

    ``OMP_NUM_THREADS`` is obeyed where it is set. The result stays in ``keep``; delete the file to measure anew.

    Args:
        directory: the CTranslate2 model.
        compute_type: how it computes.
        keep: a JSON file of results.
        sizes: what tells models apart (width, layers); part of the key, and ``mels``, ``eot``, ``start``, ``window``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked), 1
    if cores == 1:
        return 1, 1
    key = ":".join([*(f"{name}={value}" for name, value in sorted(sizes.items())), compute_type, f"cores={cores}"])
    held: dict[str, list[int]] = _held(keep)
    if key not in held:
        held = {**_held(keep), key: list(_measure(directory, compute_type, cores, sizes))}
        write_json(keep, held)
    return held[key][0], held[key][1]


def _held(keep: Path) -> dict[str, list[int]]:
    try:
        return json.loads(keep.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _measure(directory: Path, compute_type: str, cores: int, sizes: dict[str, int]) -> tuple[int, int]:
    found: dict[tuple[int, int], float] = {}
    began_s = time.monotonic()
    for intra in dict.fromkeys((cores, 1, max(1, cores // 2))):
        choice = (intra, cores // intra)
        found[choice] = _seconds(directory, compute_type, choice, sizes)
        if time.monotonic() - began_s > PATIENCE_S:
            break
    best = min(found, key=lambda choice: found[choice])
    note(f"CTranslate2 uses {best[1]} x {best[0]} threads (the fastest of {len(found)} ways tried)")
    return best


def _seconds(directory: Path, compute_type: str, choice: tuple[int, int], sizes: dict[str, int]) -> float:
    import ctranslate2

    model = ctranslate2.models.Whisper(
        str(directory), "cpu", compute_type=compute_type, intra_threads=choice[0], inter_threads=choice[1]
    )
    frames = min(FRAMES, sizes["window"])
    features = np.random.default_rng(0).normal(0, 0.5, (CLIPS, sizes["mels"], frames)).astype(np.float32)
    best_s = float("inf")
    for _ in range(3):
        began_s = time.perf_counter()
        generate_split(model, features, [sizes["start"]], choice[1], _fixed_length(sizes["eot"]))
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def _fixed_length(eot: int) -> dict[str, Any]:
    return {"beam_size": 1, "max_length": 2 * TOKENS, "suppress_tokens": [eot], "suppress_blank": False}


def generate_split(
    model: Any, features: np.ndarray, prompt: list[int], parts: int, options: dict[str, Any]
) -> list[Any]:
    """CTranslate2's results for every clip of a batch, ``parts`` pieces of it decoded at once.

    Args:
        model: a ``ctranslate2.models.Whisper``.
        features: float32 of shape (clips, mels, frames).
        prompt: tokens before the text, the same for all.
        parts: at most ``inter_threads`` of the model.
        options: of ``Whisper.generate``.
    """
    pieces = [slice(first, None, parts) for first in range(min(parts, len(features)))]

    def decode(piece: slice) -> list[Any]:
        part = np.ascontiguousarray(features[piece])
        return model.generate(_encoded(model, part), [prompt] * len(part), **options)

    if len(pieces) == 1:
        return list(decode(pieces[0]))
    results: list[Any] = [None] * len(features)
    with ThreadPoolExecutor(len(pieces)) as pool:  # CTranslate2 gives up Python's lock
        for piece, found in zip(pieces, pool.map(decode, pieces), strict=True):
            results[piece] = found
    return results


def _encoded(model: Any, features: np.ndarray) -> Any:
    """What ``generate`` is given: features, or for long windows on a CPU the encoder's output, made piece by piece.

    CTranslate2 tells the two apart by their shapes, which `LONG_FRAMES` keeps apart (no 80 or 128 encoder positions).
    """
    from ctranslate2 import DataType, StorageView

    clips, _, frames = features.shape
    size = max(1, PIECE_FRAMES // frames)
    if model.device != "cpu" or frames < LONG_FRAMES or size >= clips:
        return StorageView.from_array(features)
    found = []
    for first in range(0, clips, size):
        piece = model.encode(StorageView.from_array(features[first : first + size]))
        if piece.dtype != DataType.float32:  # NumPy has no bfloat16
            return StorageView.from_array(features)
        found.append(np.array(piece))
    return StorageView.from_array(np.concatenate(found))
