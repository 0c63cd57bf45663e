"""The cache keeps what it was given, survives a full disk, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.audit.cache import MeasureCache


def test_what_was_put_is_what_is_got(tmp_path: Path) -> None:
    values = {f"k{number}": {"x": number / 7, "text": "ä\u2028", "none": None} for number in range(1200)}
    with MeasureCache(tmp_path / "c.sqlite") as cache:
        cache.put(values.items())
        cache.put([("k1", {"x": "later"})])
    with MeasureCache(tmp_path / "c.sqlite", read_only=True) as cache:
        assert cache.get([*values, "unknown"]) == values


def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path: Path) -> None:
    with MeasureCache(tmp_path / "c.sqlite") as cache:
        cache.put([("first", {"x": 1})])
        cache._db.execute("PRAGMA max_page_count = 4")  # SQLite answers as it does where the disk is full
        with pytest.raises(InputError, match="disk is full"):
            cache.put((f"k{number}", {"x": "y" * 999}) for number in range(99))
        assert cache.get(["first", "k0"]) == {"first": {"x": 1}}


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("not a database " * 999)
    with pytest.raises(InputError, match="delete it"):
        MeasureCache(tmp_path / "c.sqlite")
    with pytest.raises(InputError):
        MeasureCache(tmp_path / "none.sqlite", read_only=True)
