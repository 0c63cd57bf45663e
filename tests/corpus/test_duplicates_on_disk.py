"""The searches that work on temporary files, against those that keep everything, and within their memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speechtune.corpus import duplicates, fingerprint_pairs
from speechtune.corpus.duplicates import duplicate_groups, duplicate_texts, linked_fingerprints, linked_texts
from speechtune.corpus.fingerprint_pairs import near_duplicate_pairs
from speechtune.corpus.groups import Groups, ordered


def words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choice("abdeimnorstu") for _ in range(rng.randint(3, 7))) for _ in range(count))


def members(groups: list[tuple[str, ...]]) -> dict[int, int]:
    return {int(name): min(map(int, group)) for group in groups for name in group}


def test_groups_are_those_of_a_search_by_hand() -> None:
    rng = np.random.default_rng(3)
    firsts, seconds = rng.integers(0, 300, (2, 150))
    groups = Groups(300)
    groups.join(firsts, seconds)
    links = [(str(a), str(b)) for a, b in zip(firsts, seconds, strict=True)]
    expected = members(duplicate_groups(links))
    expected |= {int(a): int(a) for a, b in links if a == b and int(a) not in expected}
    assert dict(groups.members()) == expected
    assert [member for member, _ in groups.members()] == sorted(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 5_000])
def test_the_order_is_that_of_a_stable_sort(count: int) -> None:
    values = np.random.default_rng(4).integers(0, 900, count, dtype=np.uint32) * np.uint32(4_000_000)
    order, in_order = ordered(values)
    np.testing.assert_array_equal(order, np.argsort(values, kind="stable"))
    np.testing.assert_array_equal(in_order, np.sort(values))


def test_linked_texts_are_the_groups_of_the_pairs(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [words(rng, rng.randint(3, 9)) for _ in range(300)]
    texts += [text[:4] + "z" + text[5:] for text in texts[:120]]
    rows = [(10 * number, text) for number, text in enumerate(texts)]
    pairs = duplicate_texts((str(number), text) for number, text in rows).near
    expected = members(duplicate_groups((pair.first, pair.second) for pair in pairs))
    assert dict(linked_texts(rows, folder=tmp_path)) == expected
    assert len(expected) > 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("edit", ["changed", "put in", "taken out"])
@pytest.mark.parametrize("place", [0, 5, 6, 7, 11])
def test_one_letter_of_a_short_text_is_found_wherever_it_is(edit: str, place: int) -> None:
    """MinHash alone misses some of these: one letter is in four of the thirteen shingles."""
    rng = random.Random(place)
    found = 0
    for number in range(40):
        text = words(rng, 6)[: 14 + number % 12].strip()
        kept = text[place + 1 :] if edit != "put in" else text[place:]
        other = text[:place] + ("" if edit == "taken out" else "z") + kept
        found += bool(list(linked_texts([(0, text), (1, other.strip())], 0.85)))
    assert found >= 39


@pytest.mark.parametrize("part_frames", [700, 500_000])
def test_linked_fingerprints_are_the_groups_of_the_pairs_however_they_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_frames: int
) -> None:
    monkeypatch.setattr(fingerprint_pairs, "_PART_FRAMES", part_frames)
    rng = np.random.default_rng(5)
    originals = [rng.integers(1, 2**32, int(rng.integers(30, 90)), dtype=np.uint64).astype("<u4") for _ in range(80)]
    copies = [one[3:] ^ (np.uint32(1) << rng.integers(0, 32, len(one) - 3).astype(np.uint32)) for one in originals[:30]]
    rows = [(7 * number, frames.astype("<u4").tobytes()) for number, frames in enumerate([*originals, *copies])]
    pairs = near_duplicate_pairs((str(number), frames) for number, frames in rows)
    assert {(int(pair.first), int(pair.second)) for pair in pairs} == {(7 * n, 7 * (80 + n)) for n in range(30)}
    assert all(pair.offset_frames == 3 for pair in pairs)
    expected = members(duplicate_groups((pair.first, pair.second) for pair in pairs))
    assert dict(linked_fingerprints(rows, folder=tmp_path)) == expected
    assert not list(tmp_path.iterdir())


def peak_bytes(work: Iterator[tuple[int, int]]) -> int:
    tracemalloc.start()
    for _ in work:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_for_a_text_is_some_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK_TEXTS", 500)

    def texts(count: int) -> Iterator[tuple[int, str]]:
        rng = random.Random(2)
        return ((number, words(rng, 12)) for number in range(count))

    few, many = (peak_bytes(linked_texts(texts(count))) for count in (2_000, 12_000))
    assert (many - few) / 10_000 < 100  # a text has 70 characters, its bands 144 bytes: both are on the disk


def test_memory_for_a_fingerprint_is_some_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_pairs, "_PART_FRAMES", 20_000)

    def prints(count: int) -> Iterator[tuple[int, bytes]]:
        rng = np.random.default_rng(2)
        return ((number, rng.bytes(400)) for number in range(count))

    few, many = (peak_bytes(linked_fingerprints(prints(count))) for count in (1_000, 5_000))
    assert (many - few) / 4_000 < 100  # a fingerprint has 400 bytes
