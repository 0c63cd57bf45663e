"""Where live audio comes from: a file (at its own pace or at once), raw PCM on standard input, a microphone."""

from __future__ import annotations

import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples, probe
from speechtune.core.errors import InputError, missing_extra
from speechtune.core.interrupt import stop_if_asked
from speechtune.core.progress import note
from speechtune.decoding.long.recording import Recording

BLOCK_S = 0.1
"""Length of the pieces in which a paced file and a microphone are read."""
_AT_ONCE_S = 30
_WAITING_BLOCKS = 256
_PIPE_BYTES = 1 << 15
_WAIT_S = 0.2

Blocks = Iterator[Samples]


def file_blocks(path: Path, pace: float) -> Blocks:
    """The samples of a file at 16 kHz, read piece by piece; with a pace, each piece when it would have been spoken.

    Args:
        path: any audio file.
        pace: 1: as fast as it was recorded, 2: twice as fast, 0: at once.

    Raises:
        AudioError: the file cannot be read.
    """
    recording = Recording(path, 0.0, probe(path).duration_s)
    began_s = time.monotonic()
    for start, block in recording.blocks(_AT_ONCE_S):
        if not pace:
            yield block
            continue
        size = round(BLOCK_S * SAMPLE_RATE_HZ)
        for first in range(0, len(block), size):
            piece = block[first : first + size]
            due_s = began_s + (start + first + len(piece)) / SAMPLE_RATE_HZ / pace
            time.sleep(max(0.0, due_s - time.monotonic()))
            yield piece


def pcm_blocks(descriptor: int, rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> Blocks:
    """Signed 16-bit little-endian PCM from a file descriptor until it ends; half a sample at the end is left out.

    Raises:
        InputError: what comes is a WAV file.
    """
    frame = 2 * channels
    convert = _converter(rate_hz)
    left, began = b"", False
    while data := os.read(descriptor, _PIPE_BYTES):
        left += data
        if not began and len(left) >= 4:
            began = True
            if left[:4] == b"RIFF":
                raise InputError("standard input is a WAV file and raw PCM is read there: give the file itself")
        whole = len(left) // frame * frame
        if whole:
            yield convert(_mono(left[:whole], channels), False)
            left = left[whole:]
    if left:
        note(f"warning: standard input ended within a sample ({len(left)} bytes left out)")
    yield convert(np.zeros(0, np.float32), True)


def microphone_blocks(device: str | None = None) -> Blocks:
    """What a microphone hears, mono at 16 kHz, until the reading stops.

    Args:
        device: its number or a part of its name; ``None``: the system's own choice.

    Raises:
        InputError: sounddevice or PortAudio is not installed, or there is no such microphone.
    """
    try:
        sounddevice: Any = importlib.import_module("sounddevice")
    except ImportError as error:
        raise missing_extra("sounddevice", "live") from error
    except OSError as error:
        raise InputError(
            f"sounddevice finds no PortAudio ({error}): install it (on Debian: apt install libportaudio2), or pipe "
            "a recorder into speechtune listen MODEL -"
        ) from error
    size = round(BLOCK_S * SAMPLE_RATE_HZ)
    chosen: Any = int(device) if device is not None and device.isdigit() else device
    try:
        with sounddevice.RawInputStream(
            samplerate=SAMPLE_RATE_HZ, blocksize=size, channels=1, dtype="int16", device=chosen
        ) as stream:
            while True:
                data, lost = stream.read(size)
                if lost:
                    note("warning: the microphone gave audio faster than it was taken, some is lost")
                yield _mono(bytes(data), 1)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(
            f"the microphone cannot be opened ({error}): name another one with --device (python -m sounddevice lists "
            "them), or pipe a recorder into speechtune listen MODEL -"
        ) from error


def _mono(data: bytes, channels: int) -> Samples:
    return (np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1) / 32768.0).astype(np.float32)


def _converter(rate_hz: int) -> Callable[[Samples, bool], Samples]:
    if rate_hz == SAMPLE_RATE_HZ:
        return lambda samples, last: samples
    import soxr

    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    return lambda samples, last: np.asarray(stream.resample_chunk(samples, last=last), np.float32)


class Captured:
    """Blocks taken in a thread of their own, so that nothing is lost or late while a decoder computes."""

    def __init__(self, blocks: Blocks) -> None:
        self._queue: queue.Queue[Samples | None] = queue.Queue(_WAITING_BLOCKS)
        self._samples = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._take, args=(blocks,), daemon=True)

    def captured_s(self) -> float:
        """Audio taken so far, in seconds."""
        return self._samples / SAMPLE_RATE_HZ

    def _take(self, blocks: Blocks) -> None:
        try:
            for block in blocks:
                self._samples += len(block)
                self._queue.put(block)
        except BaseException as error:  # shown by the thread that waits for it
            self._failure = error
        self._queue.put(None)

    def __iter__(self) -> Blocks:
        """Everything that has arrived since the last time, as one block; waits where nothing has.

        Raises:
            InputError: what taking the audio ran into.
        """
        self._thread.start()
        ended = False
        while not ended:
            try:
                blocks = [self._queue.get(timeout=_WAIT_S)]
                while blocks[-1] is not None and not self._queue.empty():
                    blocks.append(self._queue.get_nowait())
            except queue.Empty:
                stop_if_asked()
                continue
            ended = blocks[-1] is None
            arrived = [one for one in blocks if one is not None]
            if arrived:
                yield np.concatenate(arrived)
        if self._failure is not None:
            raise self._failure
