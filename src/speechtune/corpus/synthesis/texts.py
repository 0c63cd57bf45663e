"""What to say: texts from files, and sentences made of terms and carrier sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl
from speechtune.corpus.synthesis.planning import Sentence

SLOT = "{term}"


@dataclass(frozen=True, slots=True)
class Term:
    """A word or phrase to be learnt, and the engine's phonemes for it where the spelling misleads."""

    spelling: str
    pronunciation: str | None = None


def read_sentences(path: Path, split: str) -> list[Sentence]:
    """Texts to speak: one a line, or JSONL rows with ``text`` (such as ``prompts.jsonl`` of ``speechtune plan``).

    A row may also say ``term`` (or ``terms``, a list) and ``kind``. Blank lines are passed over.

    Raises:
        InputError: the file is missing, not UTF-8, has a row without text, or nothing at all.
    """
    if path.suffix.lower() != ".jsonl":
        sentences = [Sentence(line, split) for line in _lines(path)]
    else:
        sentences = []
        for number, row in enumerate(read_jsonl(path), start=1):
            text = row.get("text")
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{path} row {number} has no text: give each row a non-empty text")
            named = row.get("terms") or row.get("term") or []
            terms = tuple(str(one) for one in (named if isinstance(named, list) else [named]))
            kind = str(row.get("kind") or ("term" if terms else "plain"))
            sentences.append(Sentence(" ".join(text.split()), split, terms, kind))
    if not sentences:
        raise InputError(f"{path} has no text to speak: put one sentence on each line")
    return sentences


def read_terms(path: Path) -> list[Term]:
    """Terms, one a line; behind a tab the engine's phonemes. In JSONL, rows with ``term`` and maybe ``pronunciation``.

    Raises:
        InputError: the file is missing or empty, or a term occurs twice.
    """
    terms: list[Term] = []
    if path.suffix.lower() == ".jsonl":
        for number, row in enumerate(read_jsonl(path), start=1):
            if not isinstance(row.get("term"), str) or not row["term"].strip():
                raise InputError(f"{path} row {number} has no term: give each row a non-empty term")
            terms.append(Term(row["term"].strip(), row.get("pronunciation")))
    else:
        for line in _lines(path):
            spelling, _, phonemes = line.partition("\t")
            terms.append(Term(spelling.strip(), phonemes.strip() or None))
    if not terms:
        raise InputError(f"{path} has no term: put one on each line")
    seen: set[str] = set()
    for term in terms:
        if term.spelling.casefold() in seen:
            raise InputError(f"{path} has the term {term.spelling!r} twice: keep one of them")
        seen.add(term.spelling.casefold())
    return terms


def read_carriers(path: Path) -> list[str]:
    """Sentences with the place of a term in them, ``{term}``, one a line.

    Raises:
        InputError: the file is missing or empty, or a line has no such place.
    """
    carriers = _lines(path)
    for carrier in carriers:
        if carrier.count(SLOT) != 1:
            raise InputError(f"{path}: the line {carrier!r} needs {SLOT} in it once, where the term goes")
    if not carriers:
        raise InputError(f"{path} has no sentences: write some such as I went to the {SLOT} today.")
    return carriers


def term_sentences(
    terms: Sequence[Term], carriers: Sequence[str], per_term: int, split: str, seed: int
) -> list[Sentence]:
    """``per_term`` sentences for each term; a term meets every carrier before it meets one again.

    Carriers are used about equally often over all terms. A term at the head of a sentence gets a capital.
    """
    rng = np.random.default_rng([seed, 4])
    sentences = []
    deck: list[int] = []
    for term in terms:
        unmet: set[int] = set()
        for _ in range(per_term):
            unmet = unmet or set(range(len(carriers)))
            if not unmet & set(deck):
                deck += rng.permutation(len(carriers)).tolist()
            index = next(one for one in deck if one in unmet)
            deck.remove(index)
            unmet.remove(index)
            text = carriers[index].replace(SLOT, term.spelling)
            if carriers[index].startswith(SLOT):
                text = text[0].upper() + text[1:]
            sentences.append(Sentence(text, split, (term.spelling,), "term"))
    return sentences


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory: give a file with one text on each line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    return [line.strip() for line in text.split("\n") if line.strip()]
