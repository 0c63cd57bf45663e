"""How many threads CTranslate2 gets, found by decoding noise for a second or two, once for each kind of model."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.progress import note

CLIPS, FRAMES, TOKENS = 8, 500, 16
"""What is decoded: as many clips, of so many mel frames (5 s), into so many tokens."""
PATIENCE_S = 15.0
"""No further choice is tried once the trials took so long; large models keep the first one then."""


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
    from ctranslate2 import StorageView

    pieces = [slice(first, None, parts) for first in range(min(parts, len(features)))]
    running = []
    for piece in pieces:
        part = np.ascontiguousarray(features[piece])
        running.append(model.generate(StorageView.from_array(part), [prompt] * len(part), asynchronous=True, **options))
    results: list[Any] = [None] * len(features)
    for piece, waiting in zip(pieces, running, strict=True):
        results[piece] = [one.result() for one in waiting]
    return results
