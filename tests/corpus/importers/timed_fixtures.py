"""What the tests of the importers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtune.corpus.importing import Fill, ImportResult, import_corpus
from speechtune.corpus.table import Corpus, Utterance


def rows_of(
    source: Path, out: Path, expected: str, settings: tuple[str, ...] = (), **options: Any
) -> tuple[dict[str, Utterance], ImportResult]:
    """Import with both kinds of audio; the rows by text, which must be the same ones, and the result."""
    options.setdefault("drop_bad", False)
    fill = Fill(settings=settings)
    cut = import_corpus(source, out / "flac", audio="flac", fill=fill, **options)
    kept = import_corpus(source, out / "reference", audio="reference", fill=fill, **options)
    assert cut.format == kept.format == expected
    assert (cut.kept, cut.dropped_by_reason) == (kept.kept, kept.dropped_by_reason)
    short, long = Corpus.load(out / "flac"), Corpus.load(out / "reference")
    for one, other in zip(short, long, strict=True):
        assert one.start_s is None
        assert (one.utterance_id, one.text, one.duration_s) == (other.utterance_id, other.text, other.duration_s)
        assert short.path_of(one).is_file() and long.path_of(other).is_file()
    return {row.text: row for row in long}, kept


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path
