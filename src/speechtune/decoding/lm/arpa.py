"""Language model files: ARPA text (plain or gzip), and the same as NumPy arrays, which load in a moment."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.decoding.lm.model import BEGIN, END, NgramModel, Table, build

_NEVER_LOG10 = -99.0


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file; lines before ``\\data\\`` are passed over.

    Raises:
        InputError: the file is missing, is no ARPA file, or is cut off.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            return _parse(stream, path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except (ValueError, IndexError, KeyError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a readable ARPA language model ({error}): regenerate it") from error


def _parse(stream: Iterator[str], path: Path) -> NgramModel:
    counts: dict[int, int] = {}
    for line in stream:
        if line.strip() == "\\data\\":
            break
    else:
        raise ValueError("no \\data\\ line")
    orders: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    words: list[str] = []
    ids: dict[str, int] = {}
    order = 0
    for line in stream:
        text = line.rstrip("\n")
        if text.startswith("ngram "):
            number, count = text[6:].split("=")
            counts[int(number)] = int(count)
        elif text.startswith("\\") and text.strip().endswith("-grams:"):
            order = int(text[1:].split("-")[0])
            orders[order] = _section(stream, order, counts[order], words, ids)
        elif text.strip() == "\\end\\":
            break
    else:
        raise ValueError("the \\end\\ line is missing: the file is cut off")
    if sorted(orders) != list(range(1, len(counts) + 1)):
        raise ValueError("a section that \\data\\ announces is missing")
    for needed in (BEGIN, END):
        if needed not in ids:
            raise ValueError(f"the vocabulary has no {needed}")
    return build(words, [orders[one] for one in sorted(orders)])


def _section(
    stream: Iterator[str], order: int, count: int, words: list[str], ids: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.empty((count, order), np.int64)
    probs, backoffs = np.empty(count), np.zeros(count)
    for number in range(count):
        parts = next(stream).split()
        if len(parts) not in (order + 1, order + 2):
            raise ValueError(f"{order}-gram {number + 1} of {count} reads {' '.join(parts)!r}")
        if order == 1:
            if parts[1] in ids:
                raise ValueError(f"the word {parts[1]!r} occurs twice")
            ids[parts[1]] = len(words)
            words.append(parts[1])
        probs[number] = float(parts[0])
        rows[number] = [ids[word] for word in parts[1 : order + 1]]
        if len(parts) == order + 2:
            backoffs[number] = float(parts[-1])
    return rows, probs, backoffs


def write_arpa(model: NgramModel, path: Path) -> None:
    """Write an ARPA file, gzipped where the name ends in ``.gz``; it appears when it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(draft, "wt", encoding="utf-8") as stream:
                stream.writelines(_lines(model))
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _lines(model: NgramModel) -> Iterator[str]:
    yield "\\data\\\n"
    for order, table in enumerate(model.tables, start=1):
        yield f"ngram {order}={len(table)}\n"
    for order, table in enumerate(model.tables, start=1):
        yield f"\n\\{order}-grams:\n"
        rows = model.ngrams(order).tolist()
        for row, prob, backoff in zip(rows, table.log10_probs.tolist(), table.log10_backoffs.tolist(), strict=True):
            words = " ".join(model.words[one] for one in row)
            # The last order backs off to nothing; nothing follows the end of a sentence.
            tail = "" if order == model.order or row[-1] == model.id_of(END) else f"\t{backoff:.7g}"
            yield f"{max(prob, _NEVER_LOG10):.7g}\t{words}{tail}\n"
    yield "\n\\end\\\n"


def write_npz(model: NgramModel, path: Path) -> None:
    """Write the arrays of a model (NumPy ``.npz``); it appears when it is complete."""
    arrays: dict[str, np.ndarray] = {"words": np.frombuffer("\0".join(model.words).encode(), np.uint8)}
    for order, table in enumerate(model.tables, start=1):
        arrays[f"keys{order}"] = table.keys
        arrays[f"log10_probs{order}"] = table.log10_probs
        arrays[f"log10_backoffs{order}"] = table.log10_backoffs
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def read_npz(path: Path) -> NgramModel:
    """The inverse of `write_npz`.

    Raises:
        InputError: the file is missing or of another kind.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as held:
            words = held["words"].tobytes().decode("utf-8").split("\0")
            orders = sum(name.startswith("keys") for name in held.files)
            parts = ("keys", "log10_probs", "log10_backoffs")
            tables = [Table(*(held[f"{part}{order}"] for part in parts)) for order in range(1, orders + 1)]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a language model that speechtune wrote: regenerate it") from error
    return NgramModel(words, tables)
