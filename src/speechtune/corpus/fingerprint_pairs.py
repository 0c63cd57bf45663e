"""Recordings that sound the same, found among the fingerprints of many, most of which are on the disk.

A fingerprint is a row of 32-bit sub-fingerprints, one every few hundredths of a second; two recordings of one sound
differ in few bits (Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002). As there, places
where both agree exactly give the alignments to try, and the share of differing bits over the whole overlap decides.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError
from speechtune.corpus.groups import Groups, ordered

_PROJECTIONS = tuple(np.uint32(mask) for mask in (0x00FFFFFF, 0xFFFFFF00, 0xFFF00FFF, 0xF0F7BF6F))
"""Bits that must agree: 24 of the 32 or more, chosen differently, so that a flipped bit does not hide every match."""

_NEIGHBOURS = 8
_PART_FRAMES = 500_000  # places that are compared with each other at once
_MOST_PARTS = 128  # each is a temporary file, kept open
_LOOKS_FRAMES = (8, 16)  # what follows a match is compared first, a little and then more
_BATCH = 100_000
_ALIKE = 0.4
_ONES = np.array([bin(value).count("1") for value in range(65_536)], dtype=np.uint8)

Ints = npt.NDArray[np.int64]
Frames = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FingerprintPair:
    """Two recordings that sound the same.

    ``distance`` is the share of differing bits where they overlap (0: identical, 0.5: unrelated).
    ``offset_frames`` sub-fingerprints of the first come before the second one starts (negative: the reverse).
    """

    first: str
    second: str
    distance: float
    offset_frames: int


def near_duplicate_pairs(
    fingerprints: Iterable[tuple[str, bytes]],
    max_distance: float = 0.25,
    *,
    max_offset_frames: int = 32,
    min_overlap_frames: int = 12,
) -> list[FingerprintPair]:
    """Find pairs of recordings that sound the same.

    Haitsma and Kalker call two blocks of 256 frames the same below a distance of 0.35; shorter overlaps need a stricter
    limit, hence 0.25. They measured distances of 0.08 to 0.09 for MP3 at 128 kbit/s and 0.13 to 0.17 at 32 kbit/s.
    A frame of 0 stands for a pause and is not compared; frames that repeat the one before are not looked up. In a
    cluster of more than nine copies not every pair is listed, but the cluster hangs together.

    Args:
        fingerprints: (id, little-endian 32-bit sub-fingerprints), read once and kept in a temporary file.
        max_distance: largest distance of a pair, up to 0.4.
        max_offset_frames: how far apart the starts may lie: 1 s is 32 frames of 31 ms, 16 frames of 62 ms.
        min_overlap_frames: least number of frames to compare; recordings with fewer must overlap in all of them.

    Raises:
        InputError: a limit is out of range, or a fingerprint is not a whole number of 32-bit words.
    """
    ids: list[str] = []
    best: dict[tuple[int, int], tuple[float, int]] = {}
    with _searching(fingerprints, ids, max_distance, max_offset_frames, min_overlap_frames, None) as search:
        for firsts, seconds, offsets, distances in search.pairs():
            for first, second, offset, distance in zip(
                firsts.tolist(), seconds.tolist(), offsets.tolist(), distances.tolist(), strict=True
            ):
                known = best.get((first, second))
                if known is None or (distance, abs(offset)) < (known[0], abs(known[1])):
                    best[first, second] = (distance, offset)
    return [
        FingerprintPair(ids[first], ids[second], round(distance, 4), offset)
        for (first, second), (distance, offset) in sorted(best.items())
    ]


def linked_fingerprints(
    fingerprints: Iterable[tuple[int, bytes]],
    max_distance: float = 0.25,
    *,
    max_offset_frames: int = 32,
    min_overlap_frames: int = 12,
    folder: Path | None = None,
) -> Iterator[tuple[int, int]]:
    """The groups that the pairs of `near_duplicate_pairs` make: (number, least number of its group), ascending.

    Memory: 21 bytes for each recording and a constant; fingerprints and matches are in temporary files.

    Args:
        fingerprints: (number, sub-fingerprints) with ascending numbers, read once.
        max_distance, max_offset_frames, min_overlap_frames: as in `near_duplicate_pairs`.
        folder: where the temporary files are (default: the system's place).
    """
    numbers = array("I")
    with _searching(fingerprints, numbers, max_distance, max_offset_frames, min_overlap_frames, folder) as search:
        groups = Groups(len(numbers))
        for firsts, seconds, _, _ in search.pairs():
            groups.join(firsts, seconds)
    for member, first in groups.members():
        yield numbers[member], numbers[first]


def sorted_distinct(values: Ints) -> Ints:
    """``np.unique`` by sorting: its hash table (numpy 2.3 and later) took 40 times as long on the codes of pairs."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


@contextmanager
def _searching(
    fingerprints: Iterable[tuple[Any, bytes]],
    ids: Any,
    max_distance: float,
    max_offset: int,
    min_overlap: int,
    folder: Path | None,
) -> Iterator[_Search]:
    """A search over fingerprints that are spilled to a temporary file; their names are appended to ``ids``."""
    if not 0 <= max_distance <= 0.4:
        raise InputError(f"max_distance must be between 0 and 0.4, not {max_distance}: 0.5 is unrelated audio")
    if max_offset < 0 or min_overlap < 1:
        raise InputError("max_offset_frames must not be negative and min_overlap_frames at least 1")
    ends, sounding = array("q", [0]), array("I")
    with tempfile.TemporaryFile(dir=folder) as spill:
        for name, fingerprint in fingerprints:
            if len(fingerprint) % 4:
                raise InputError(f"the fingerprint of {name!r} has {len(fingerprint)} bytes: give whole 32-bit words")
            spill.write(fingerprint)
            ids.append(name)
            ends.append(ends[-1] + len(fingerprint) // 4)
            sounding.append(int(np.count_nonzero(np.frombuffer(fingerprint, "<u4"))))
        bounds, heard = np.frombuffer(ends, np.int64), np.frombuffer(sounding, "u4") if ids else np.zeros(0, "u4")
        yield _Search(spill, bounds, heard, max_distance, max_offset, min_overlap, folder)


@dataclass(frozen=True, slots=True)
class _Part:
    """Places (frames of all recordings in a row) whose frames may agree in a mask, in ascending order.

    Attributes:
        windows: (places, 16) the frame and those that follow it in its recording, 0 beyond its end.
        recording: which recording each place is in.
        within: its distance from the recording's first frame.
    """

    windows: Frames
    recording: Ints
    within: Ints


@dataclass(frozen=True, slots=True)
class _Search:
    """The file of all recordings' frames in a row, where each recording ends, and the limits of a pair."""

    file: BinaryIO
    ends: Ints
    sounding: Frames
    max_distance: float
    max_offset: int
    min_overlap: int
    folder: Path | None

    def pairs(self) -> Iterator[tuple[Ints, Ints, Ints, npt.NDArray[np.float64]]]:
        """Batches of (first, second, offset, distance) that are within the limits; a pair may come more than once."""
        if len(self.sounding) < 2 or not self.ends[-1]:
            return
        for mask in _PROJECTIONS:
            for places in self._partition(mask):
                part = self._part(places)
                for left, right in _matches(part.windows[:, 0], mask):
                    for firsts, seconds, offsets in self._parts_to_read(*self._alignments(part, left, right)):
                        distances, compared = self._distances(firsts, seconds, offsets)
                        good = (distances <= self.max_distance) & compared
                        yield firsts[good], seconds[good], offsets[good], distances[good]

    def _read(self, start: int, end: int) -> Frames:
        self.file.seek(4 * start)
        return np.frombuffer(self.file.read(4 * (end - start)), dtype="<u4")

    def _partition(self, mask: np.uint32) -> Iterator[Ints]:
        """The places of frames to look up, in shares in which equal ones are together; kept in temporary files."""
        total = int(self.ends[-1])
        parts = min(_MOST_PARTS, -(-total // _PART_FRAMES))
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile(dir=self.folder)) for _ in range(parts)]
            for start in range(0, total, _PART_FRAMES):
                block = self._read(start, min(total, start + _PART_FRAMES))
                usable = (block != 0) & (block != np.uint32(0xFFFFFFFF))
                usable[1:] &= block[1:] != block[:-1]
                places = np.flatnonzero(usable)
                share = (_key(block[places], mask) >> np.uint32(8)) % np.uint32(parts)
                order = np.argsort(share, kind="stable")
                borders = np.cumsum(np.bincount(share, minlength=parts))[:-1]
                for file, some in zip(files, np.split(places[order] + start, borders), strict=True):
                    file.write(some.astype(np.int64).tobytes())
            for file in files:
                file.seek(0)
                yield np.frombuffer(file.read(), dtype=np.int64)

    def _part(self, places: Ints) -> _Part:
        """What follows each place, read from the file from front to back."""
        total, width = int(self.ends[-1]), _LOOKS_FRAMES[-1]
        windows = np.zeros((len(places), width), dtype=np.uint32)
        block = np.zeros(min(total, _PART_FRAMES) + width - 1, dtype="<u4")
        following = np.lib.stride_tricks.sliding_window_view(block, width)
        for start in range(0, total, _PART_FRAMES):
            end = min(total, start + _PART_FRAMES)
            low, high = np.searchsorted(places, [start, end])
            if low < high:
                self.file.seek(4 * start)
                block[self.file.readinto(block[: end + width - 1 - start].data.cast("B")) // 4 :] = 0  # type: ignore[attr-defined]
                for some in range(low, high, _BATCH // 2):
                    till = min(high, some + _BATCH // 2)
                    windows[some:till] = following[places[some:till] - start]
        recording = np.searchsorted(self.ends, places, side="right") - 1
        ahead = self.ends[recording + 1] - places
        short = np.flatnonzero(ahead < width)
        windows[short] *= np.arange(width) < ahead[short, None]
        return _Part(windows, recording, places - self.ends[recording])

    def _alignments(self, part: _Part, left: Ints, right: Ints) -> tuple[Ints, Ints, Ints]:
        """Pairs and offsets to compare: different recordings, near enough, alike after the match; each once."""
        first, second = part.recording[left], part.recording[right]
        offset = part.within[left] - part.within[right]
        for frames in (0, *_LOOKS_FRAMES):
            if frames:
                good = _differing(part.windows[left, :frames], part.windows[right, :frames]) <= _ALIKE
            else:
                good = (first != second) & (np.abs(offset) <= self.max_offset)
            left, right, first, second, offset = left[good], right[good], first[good], second[good], offset[good]
        span = 2 * self.max_offset + 1
        code = sorted_distinct((first * len(self.ends) + second) * span + offset + self.max_offset)
        pair = code // span
        return pair // len(self.ends), pair % len(self.ends), code % span - self.max_offset

    def _parts_to_read(self, first: Ints, second: Ints, offset: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
        """The pairs in portions of about `_PART_FRAMES` frames."""
        lengths = np.diff(self.ends)
        portion = np.cumsum(lengths[first] + lengths[second]) // _PART_FRAMES
        for place in np.split(np.arange(len(first)), np.flatnonzero(np.diff(portion)) + 1):
            if len(place):
                yield first[place], second[place], offset[place]

    def _distances(
        self, first: Ints, second: Ints, offset: Ints
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The share of differing bits over each whole overlap, and whether enough of it was compared to say so."""
        wanted = sorted_distinct(np.concatenate([first, second]))
        frames = np.concatenate([self._read(int(self.ends[one]), int(self.ends[one + 1])) for one in wanted])
        ends = np.concatenate([[0], np.cumsum(self.ends[wanted + 1] - self.ends[wanted])])
        one, other = np.searchsorted(wanted, first), np.searchsorted(wanted, second)
        left = ends[one] + np.maximum(offset, 0)
        right = ends[other] + np.maximum(-offset, 0)
        counts = np.maximum(np.minimum(ends[one + 1] - left, ends[other + 1] - right), 0)
        bits = np.zeros(len(left), dtype=np.int64)
        compared = np.zeros(len(left), dtype=np.int64)
        for step in range(int(counts.max(initial=0))):
            live = np.flatnonzero(counts > step)
            a, b = frames[left[live] + step], frames[right[live] + step]
            both = (a != 0) & (b != 0)
            bits[live[both]] += _ones((a ^ b)[both])
            compared[live[both]] += 1
        needed = np.minimum(self.min_overlap, np.minimum(self.sounding[first], self.sounding[second]))
        return bits / np.maximum(32 * compared, 1), compared >= np.maximum(needed, 1)


def _key(frames: Frames, mask: np.uint32) -> Frames:
    """A frame's bits in the mask; multiplying by an odd number is a bijection that spreads the shares evenly."""
    return (frames & mask) * np.uint32(0x9E3779B1)


def _matches(frames: Frames, mask: np.uint32) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of indices of frames that agree in the bits of a mask, the lower first, in batches."""
    order, keys = ordered(_key(frames, mask))
    for step in range(1, _NEIGHBOURS + 1):
        equal = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(equal):
            return
        for start in range(0, len(equal), _BATCH):
            some = equal[start : start + _BATCH]
            yield order[some], order[some + step]


def _ones(values: Frames) -> npt.NDArray[np.uint8]:
    """How many bits of each value are set (numpy counts them from 2.0 on)."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values))
    return np.asarray(_ONES[values & np.uint32(0xFFFF)] + _ONES[values >> np.uint32(16)])


def _differing(one: Frames, other: Frames) -> npt.NDArray[np.float64]:
    """The share of differing bits in each row, over the frames that are no pause in either."""
    both = (one != 0) & (other != 0)
    bits = (_ones(one ^ other) * both).sum(axis=1, dtype=np.int64)
    return np.asarray(bits / np.maximum(32 * both.sum(axis=1), 1))
