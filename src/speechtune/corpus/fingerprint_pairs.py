"""Recordings that sound the same, found among fingerprints of many, in memory that does not grow with their length.

A fingerprint is a row of 32-bit sub-fingerprints, one every few hundredths of a second; two recordings of one sound
differ in few bits (Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002). As there, places
where both agree exactly give the alignments to try, and the share of differing bits over the whole overlap decides.
"""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError

_PROJECTIONS = tuple(np.uint32(mask) for mask in (0x00FFFFFF, 0xFFFFFF00, 0xFFF00FFF, 0xF0F7BF6F))
"""Bits that must agree: 24 of the 32 or more, chosen differently, so that a flipped bit does not hide every match."""

_NEIGHBOURS = 8
_PART_FRAMES = 4_000_000
_FIRST_LOOK_FRAMES = 8
_BATCH = 1_000_000
_ONES = np.array([bin(value).count("1") for value in range(65_536)], dtype=np.uint8)


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
    if not 0 <= max_distance <= 0.4:
        raise InputError(f"max_distance must be between 0 and 0.4, not {max_distance}: 0.5 is unrelated audio")
    if max_offset_frames < 0 or min_overlap_frames < 1:
        raise InputError("max_offset_frames must not be negative and min_overlap_frames at least 1")
    ids: list[str] = []
    ends = array("q", [0])
    with tempfile.TemporaryFile() as spill:
        for name, fingerprint in fingerprints:
            if len(fingerprint) % 4:
                raise InputError(f"the fingerprint of {name!r} has {len(fingerprint)} bytes: give whole 32-bit words")
            spill.write(fingerprint)
            ids.append(name)
            ends.append(ends[-1] + len(fingerprint) // 4)
        spill.flush()
        if len(ids) < 2 or not ends[-1]:
            return []
        frames = np.memmap(spill, dtype="<u4", mode="r", shape=(ends[-1],))
        bounds = np.array(ends)
        search = _Search(frames, bounds, _sounding(frames, bounds), max_distance, max_offset_frames, min_overlap_frames)
        best: dict[tuple[int, int], tuple[float, int]] = {}
        for firsts, seconds, offsets, distances in search.pairs():
            for first, second, offset, distance in zip(
                firsts.tolist(), seconds.tolist(), offsets.tolist(), distances.tolist(), strict=True
            ):
                known = best.get((first, second))
                if known is None or (distance, abs(offset)) < (known[0], abs(known[1])):
                    best[first, second] = (distance, offset)
        del search, frames
    return [
        FingerprintPair(ids[first], ids[second], round(distance, 4), offset)
        for (first, second), (distance, offset) in sorted(best.items())
    ]


Ints = npt.NDArray[np.int64]


def sorted_distinct(values: Ints) -> Ints:
    """``np.unique`` by sorting: its hash table (numpy 2.3 and later) took 40 times as long on the codes of pairs."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _sounding(frames: npt.NDArray[np.uint32], ends: Ints) -> Ints:
    """How many frames of each recording are not pauses."""
    return np.array([np.count_nonzero(frames[start:end]) for start, end in itertools.pairwise(ends.tolist())])


@dataclass(frozen=True, slots=True)
class _Search:
    """The frames of all recordings in a row, where each recording ends, and the limits of a pair."""

    frames: npt.NDArray[np.uint32]
    ends: Ints
    sounding: Ints
    max_distance: float
    max_offset: int
    min_overlap: int

    def pairs(self) -> Iterator[tuple[Ints, Ints, Ints, npt.NDArray[np.float64]]]:
        """Batches of (first, second, offset, distance) that are within the limits."""
        parts = -(-len(self.frames) // _PART_FRAMES)
        for mask in _PROJECTIONS:
            for part in range(parts):
                for left, right in self._matches(mask, part, parts):
                    firsts, seconds, offsets = self._alignments(left, right)
                    if len(firsts):
                        distances, compared = self._distances(firsts, seconds, offsets)
                        good = (distances <= self.max_distance) & compared
                        yield firsts[good], seconds[good], offsets[good], distances[good]

    def _matches(self, mask: np.uint32, part: int, parts: int) -> Iterator[tuple[Ints, Ints]]:
        """Positions of frames that agree in the bits of a mask, from one of ``parts`` shares of all values."""
        kept_positions, kept_keys = [], []
        for start in range(0, len(self.frames), _PART_FRAMES):
            block = np.asarray(self.frames[start : start + _PART_FRAMES])
            keys = (block & mask) * np.uint32(0x9E3779B1)  # odd: a bijection, spreads the shares evenly
            usable = (block != 0) & (block != np.uint32(0xFFFFFFFF)) & ((keys >> np.uint32(8)) % parts == part)
            usable[1:] &= block[1:] != block[:-1]
            positions = np.flatnonzero(usable)
            kept_positions.append(positions + start)
            kept_keys.append(keys[positions])
        positions, keys = np.concatenate(kept_positions), np.concatenate(kept_keys)
        order = np.argsort(keys, kind="stable")
        positions, keys = positions[order], keys[order]
        for step in range(1, _NEIGHBOURS + 1):
            equal = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(equal):
                return
            for start in range(0, len(equal), _BATCH):
                some = equal[start : start + _BATCH]
                yield positions[some], positions[some + step]

    def _alignments(self, left: Ints, right: Ints) -> tuple[Ints, Ints, Ints]:
        """Pairs and offsets to compare: different recordings, near enough, alike around the match; each once."""
        first = np.searchsorted(self.ends, left, side="right") - 1
        second = np.searchsorted(self.ends, right, side="right") - 1
        offset = (left - self.ends[first]) - (right - self.ends[second])
        near = (first != second) & (np.abs(offset) <= self.max_offset)
        left, right, first, second, offset = left[near], right[near], first[near], second[near], offset[near]
        ahead = np.minimum(self.ends[first + 1] - left, self.ends[second + 1] - right)
        alike = self._differing(left, right, np.minimum(ahead, _FIRST_LOOK_FRAMES))[0] <= 0.4
        span = 2 * self.max_offset + 1
        code = (first[alike] * len(self.ends) + second[alike]) * span + offset[alike] + self.max_offset
        code = sorted_distinct(code)
        pair = code // span
        return pair // len(self.ends), pair % len(self.ends), code % span - self.max_offset

    def _distances(
        self, first: Ints, second: Ints, offset: Ints
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The share of differing bits over each whole overlap, and whether enough of it was compared to say so."""
        left = self.ends[first] + np.maximum(offset, 0)
        right = self.ends[second] + np.maximum(-offset, 0)
        overlap = np.minimum(self.ends[first + 1] - left, self.ends[second + 1] - right)
        distances, compared = self._differing(left, right, np.maximum(overlap, 0))
        needed = np.minimum(self.min_overlap, np.minimum(self.sounding[first], self.sounding[second]))
        return distances, compared >= np.maximum(needed, 1)

    def _differing(self, left: Ints, right: Ints, counts: Ints) -> tuple[npt.NDArray[np.float64], Ints]:
        """The share of differing bits over ``counts`` frames from two positions each, and how many were compared."""
        bits = np.zeros(len(left), dtype=np.int64)
        compared = np.zeros(len(left), dtype=np.int64)
        for step in range(int(counts.max(initial=0))):
            live = np.flatnonzero(counts > step)
            one, other = self.frames[left[live] + step], self.frames[right[live] + step]
            both = (one != 0) & (other != 0)
            live, different = live[both], (one ^ other)[both]
            bits[live] += _ONES[different & np.uint32(0xFFFF)] + _ONES[different >> np.uint32(16)].astype(np.int64)
            compared[live] += 1
        return bits / np.maximum(32 * compared, 1), compared
