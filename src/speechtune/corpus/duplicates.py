"""Texts that say the same or nearly the same, and what follows for splits; a million rows in minutes.

Exact duplicates are found by a 64-bit hash of the text's key. Near ones are found by MinHash over four-character
shingles (Broder 1997) with banding (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), all in
numpy, and every candidate is then compared in full, so that no reported pair is a guess. Texts and bands are kept in
temporary files. The datasketch library does
the same with a Python object for each text and took nine times as long (0.54 against 0.06 ms a text, 4000 texts).
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError
from speechtune.corpus.fingerprint_pairs import (
    FingerprintPair,
    linked_fingerprints,
    near_duplicate_pairs,
)
from speechtune.corpus.groups import Groups, ordered
from speechtune.corpus.text_keys import text_key

__all__ = [
    "FingerprintPair",
    "NearPair",
    "TextDuplicates",
    "duplicate_groups",
    "duplicate_texts",
    "groups_across",
    "linked_fingerprints",
    "linked_texts",
    "near_duplicate_pairs",
]

_SHINGLE_CHARS = 4
_MINHASH_BANDS = 32
_ROWS_PER_BAND = 4
_HALF_BANDS = 4
_BANDS = _MINHASH_BANDS + _HALF_BANDS
_SHORT_CHARS = 40  # one changed letter takes too many of the shingles of a shorter text
_NEIGHBOURS = 8
_CHUNK_TEXTS = 10_000
_VERIFY_PAIRS = 50_000
_REMEMBERED_PAIRS = 500_000  # of those compared before; beyond, a pair may be compared again


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two utterances whose texts nearly agree; ``similarity`` is 1 minus the normalised indel distance of the keys."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True, slots=True)
class TextDuplicates:
    """What `duplicate_texts` found.

    ``same`` holds the ids of each group of texts with one key, ``near`` pairs of nearly equal texts, each group
    represented by its first id. ``without_text`` counts rows whose text has no letter or digit: they are in no group.
    """

    rows: int
    without_text: int
    same: list[tuple[str, ...]]
    near: list[NearPair]

    def groups(self) -> list[tuple[str, ...]]:
        """Ids that hang together through equal or nearly equal texts, largest group first."""
        return duplicate_groups([*self.same, *((pair.first, pair.second) for pair in self.near)])

    def to_json(self) -> dict[str, Any]:
        """Counts, groups and pairs, JSON-ready."""
        return {
            "rows": self.rows,
            "without_text": self.without_text,
            "same_text": [list(group) for group in self.same],
            "near_text": [{"ids": [pair.first, pair.second], "similarity": pair.similarity} for pair in self.near],
        }


def duplicate_texts(rows: Iterable[tuple[str, str]], *, similarity: float = 0.9) -> TextDuplicates:
    """Find rows whose texts are equal or nearly equal.

    A text is compared by its `text_key`, so case and punctuation make no difference. Pairs at ``similarity`` 0.9 are
    found with a probability above 0.95, closer ones with more (measured in the tests). In a cluster of more than nine
    similar texts not every pair is listed, but the cluster hangs together.

    Args:
        rows: (utterance id, text), read once.
        similarity: least similarity of a near pair, 0.7 to 1; 1 finds equal texts only.

    Memory: the ids and the pairs, plus about 50 bytes for each row.

    Raises:
        InputError: ``similarity`` is outside its range.
    """
    _check(similarity)
    ids: list[str] = []
    found: dict[tuple[int, int], float] = {}
    with closing(_Keys()) as keys:
        for utterance_id, text in rows:
            ids.append(utterance_id)
            keys.append(text_key(text))
        same, distinct = _equal(keys)
        for pairs, scores in _near(keys, distinct, similarity, None):
            for (first, second), score in zip(pairs.tolist(), scores.tolist(), strict=True):
                found[first, second] = score
        near = [NearPair(ids[one], ids[other], round(score, 4)) for (one, other), score in found.items()]
        near.sort(key=lambda pair: (-pair.similarity, pair.first, pair.second))
        return TextDuplicates(
            rows=len(ids),
            without_text=keys.empty,
            same=[tuple(ids[row] for row in group) for group in same],
            near=near,
        )


def linked_texts(
    rows: Iterable[tuple[int, str]], similarity: float = 0.9, *, folder: Path | None = None
) -> Iterator[tuple[int, int]]:
    """The groups that nearly equal texts make: (number, least number of its group), ascending.

    Memory: 50 bytes for each text and a constant, half of them while a band is searched; texts and bands are in
    temporary files.

    Args:
        rows: (number, `text_key` of a text) with ascending numbers and different keys, read once.
        similarity: as in `duplicate_texts`.
        folder: where the temporary files are (default: the system's place).
    """
    _check(similarity)
    numbers = array("I")
    with closing(_Keys(folder, hashed=False)) as keys:
        for number, key in rows:
            numbers.append(number)
            keys.append(key)
        groups = Groups(len(numbers))
        for pairs, _ in _near(keys, np.arange(len(numbers)), similarity, folder):
            groups.join(pairs[:, 0], pairs[:, 1])
    for member, first in groups.members():
        yield numbers[member], numbers[first]


def _check(similarity: float) -> None:
    if not 0.7 <= similarity <= 1:
        raise InputError(f"similarity must be between 0.7 and 1, not {similarity}: below that, pairs are missed")


class _Keys:
    """Many short texts in a temporary file; a row costs 16 bytes of memory (8 without ``hashed``)."""

    def __init__(self, folder: Path | None = None, *, hashed: bool = True) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - close() closes it
        self._ends = array("q", [0])
        self.hashes = array("Q")
        self._hashed = hashed
        self.empty = 0

    def append(self, key: str) -> None:
        encoded = key.encode("utf-8", "surrogatepass")
        self._file.write(encoded)
        self._ends.append(self._ends[-1] + len(encoded))
        if self._hashed:
            self.hashes.append(int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little"))
        self.empty += not encoded

    def __getitem__(self, row: int) -> str:
        self._file.seek(self._ends[row])
        return self._file.read(self._ends[row + 1] - self._ends[row]).decode("utf-8", "surrogatepass")

    def some(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The texts of ascending rows, read at once (with what lies between them)."""
        start = self._ends[int(rows[0])]
        self._file.seek(start)
        block = self._file.read(self._ends[int(rows[-1]) + 1] - start)
        spans = ((self._ends[row] - start, self._ends[row + 1] - start) for row in rows.tolist())
        return [block[first:last].decode("utf-8", "surrogatepass") for first, last in spans]

    def close(self) -> None:
        self._file.close()

    def is_empty(self) -> npt.NDArray[np.bool_]:
        return np.diff(np.frombuffer(self._ends, dtype=np.int64)) == 0


def _equal(keys: _Keys) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Row numbers of each group of equal keys, and the first row of every distinct key that is not empty."""
    rows = np.flatnonzero(~keys.is_empty()) if keys.hashes else np.empty(0, dtype=np.int64)
    if not len(rows):
        return [], rows
    hashes = np.frombuffer(keys.hashes, dtype=np.uint64)[rows]
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order[0]] ^ np.uint64(1)))
    groups = np.split(rows[order], starts[1:])
    same = sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))
    return same, np.sort(rows[order[starts]])


def _near(
    keys: _Keys, distinct: npt.NDArray[np.int64], similarity: float, folder: Path | None
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Batches of pairs of rows (n, 2) that are similar enough, with their similarities; a pair may come twice."""
    if similarity < 1 and len(distinct) > 1:
        for batch in _candidates(keys, distinct, folder):
            scores = _scores(keys, batch, similarity)
            good = scores >= similarity
            yield batch[good], scores[good]


def _candidates(keys: _Keys, distinct: npt.NDArray[np.int64], folder: Path | None) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs of rows (n, 2) that share a band of MinHash values."""
    count = len(distinct)
    seen = np.empty(0, dtype=np.int64)
    with tempfile.TemporaryFile(dir=folder) as spill:
        for start in range(0, count, _CHUNK_TEXTS):
            chunk = _bands(keys, distinct[start : start + _CHUNK_TEXTS])
            for band in range(_BANDS):
                spill.seek(4 * (band * count + start))
                spill.write(chunk[:, band].tobytes())
        for band in range(_BANDS):
            spill.seek(4 * band * count)
            order, values = ordered(np.frombuffer(spill.read(4 * count), dtype=np.uint32))
            for step in range(1, _NEIGHBOURS + 1):
                equal = np.flatnonzero(values[step:] == values[:-step])
                if not len(equal):
                    break
                for some in _parts(equal, _VERIFY_PAIRS):
                    fresh = np.sort(order[some] * count + order[some + step])  # a stable sort keeps first < second
                    if len(seen):
                        fresh = fresh[seen[np.minimum(np.searchsorted(seen, fresh), len(seen) - 1)] != fresh]
                    if len(seen) + len(fresh) <= _REMEMBERED_PAIRS:
                        seen = np.sort(np.concatenate([seen, fresh]), kind="stable")
                    yield np.stack([distinct[fresh // count], distinct[fresh % count]], axis=1)


def _parts(values: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _bands(keys: _Keys, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """One hash for each row and band (rows, `_BANDS`): equal where all MinHash values of the band are equal."""
    texts = [text.center(_SHINGLE_CHARS) for text in keys.some(rows)]
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in texts])
    shingles = _mix(codes[:-3] + _mix(codes[1:-2] + _mix(codes[2:-1] + _mix(codes[3:]))))
    # Windows that cross from one text into the next are left out.
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)
    for back in range(1, _SHINGLE_CHARS):
        inside[ends - back] = False
    shingles = shingles[inside[: len(shingles)]]
    counts = lengths - (_SHINGLE_CHARS - 1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    bands = np.zeros((len(rows), _BANDS), dtype=np.uint32)
    bands[:, _MINHASH_BANDS:] = [_halves(text, int(row)) for text, row in zip(texts, rows, strict=True)]
    for band in range(_MINHASH_BANDS):
        for _ in range(_ROWS_PER_BAND):
            # Another mixing of the last values is another hash function.
            shingles = _mix(shingles + np.uint32(0x9E3779B9))
            bands[:, band] = _mix(bands[:, band] ^ np.minimum.reduceat(shingles, starts))
    return bands


def _halves(text: str, row: int) -> tuple[int, ...]:
    """Hashes of the beginning and the end of a short text.

    Where one letter is changed, put in or taken out, one half of the shorter text stays as it is. Halves of even and
    of odd length have bands of their own, because a text may be compared with one that is longer or shorter by one.
    A band that a text has no half for gets a hash of the row, which no other row has but by chance.
    """
    length = len(text)
    values = [zlib.crc32(f"{row} {band}".encode()) for band in range(_HALF_BANDS)]
    if length <= _SHORT_CHARS:
        for half in {length // 2, (length + 1) // 2}:
            values[half % 2] = zlib.crc32(text[:half].encode("utf-8", "surrogatepass"))
            values[2 + half % 2] = zlib.crc32(text[length - half :].encode("utf-8", "surrogatepass"))
    return tuple(values)


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A bijection of 32-bit integers with full avalanche (lowbias32, Chris Wellons 2018, public domain)."""
    mixed = values ^ (values >> np.uint32(16))
    mixed = mixed * np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _scores(keys: _Keys, pairs: npt.NDArray[np.int64], similarity: float) -> npt.NDArray[np.float32]:
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cpdist

    first = [keys[int(row)] for row in pairs[:, 0]]
    second = [keys[int(row)] for row in pairs[:, 1]]
    scores = cpdist(first, second, scorer=Indel.normalized_similarity, score_cutoff=similarity)
    return np.asarray(scores)  # float32, so that 0.9 reaches 0.9


def duplicate_groups(links: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Join ids that are linked, directly or through others, into groups; each in order of appearance, largest first."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for link in links:
        for other in link:
            parent[root(other)] = root(link[0])
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return sorted((tuple(group) for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group))


def groups_across(groups: Iterable[Sequence[str]], value_of: Mapping[str, str | None]) -> list[dict[str, list[str]]]:
    """The groups whose ids have more than one value (split, speaker, …), each as value to ids.

    Ids without a value are left out: what has no split cannot leak.
    """
    found = []
    for group in groups:
        by_value: dict[str, list[str]] = {}
        for name in group:
            value = value_of.get(name)
            if value is not None:
                by_value.setdefault(value, []).append(name)
        if len(by_value) > 1:
            found.append(by_value)
    return found
