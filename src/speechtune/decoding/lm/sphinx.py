"""Reads CMU Sphinx's binary language models ("Trie Language Model"), such as the one in the PyPI package pocketsphinx.

The format as its own reader has it (github.com/cmusphinx/pocketsphinx, ``src/lm/lm_trie.c`` and ``lm_trie_quant.c``):
little-endian counts, 16-bit quantisation tables, unigrams, then one packed bit array per order. An n-gram is kept
last word first, so the children of "am" begin with "i" (what stands before it). Values are logarithms to base 1.0001.
Package pocketsphinx 5.1.1 cannot write its own model as ARPA: it crashes at the trigrams.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError
from speechtune.decoding.lm.model import NgramModel, build

_MAGIC = b"Trie Language Model"
_BINS = 1 << 16
_TO_LOG10 = math.log10(1.0001)
_FLOOR_LOG10 = -99.0


def read_sphinx(path: Path) -> NgramModel:
    """Read a Sphinx binary model.

    Raises:
        InputError: the file is of another format, or damaged.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise InputError(f"{path} is not a Sphinx binary language model: give an .arpa or .npz file instead")
    try:
        return _parse(data)
    except (IndexError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): obtain it again") from error


def _parse(data: bytes) -> NgramModel:
    at = len(_MAGIC)
    order = data[at]
    counts = np.frombuffer(data, "<u4", order, at + 1).astype(np.int64)
    at += 1 + 4 * order
    tables: list[np.ndarray] = []
    if order > 1:
        at += 4
        for _ in range(2 * (order - 2) + 1):
            tables.append(np.frombuffer(data, "<f4", _BINS, at))
            at += 4 * _BINS
    unigrams = np.frombuffer(data, [("prob", "<f4"), ("backoff", "<f4"), ("next", "<u4")], counts[0] + 1, at)
    at += unigrams.nbytes
    # Rows of the previous order, last word first, and where each one's children begin.
    rows = np.arange(counts[0])[:, None]
    first_child = unigrams["next"].astype(np.int64)
    orders = [(rows, _log10(unigrams["prob"][:-1]), _log10(unigrams["backoff"][:-1]))]
    word_bits = int(counts[0]).bit_length()
    for n in range(2, order + 1):
        next_bits = int(counts[n]).bit_length() if n < order else 0
        value_bits = 32 if n < order else 16
        total_bits = word_bits + value_bits + next_bits
        size = (int(1 + counts[n - 1]) * total_bits + 7) // 8 + 8
        bits = np.frombuffer(data, np.uint8, size, at)
        at += size
        entries = np.arange(counts[n - 1] + 1)
        # A few entries at either end belong to no parent; the reader of Sphinx never gets to them.
        linked = entries[first_child[0] : first_child[-1]]
        parents = np.repeat(np.arange(len(rows)), np.diff(first_child))
        words = _packed(bits, linked * total_bits, word_bits)
        rows = np.concatenate([rows[parents], words[:, None]], axis=1)
        values = linked * total_bits + word_bits
        if n < order:
            backoff = tables[2 * n - 3][_packed(bits, values, 16)]
            prob = tables[2 * n - 4][_packed(bits, values + 16, 16)]
            ends = np.append(linked, linked[-1] + 1)
            first_child = _packed(bits, ends * total_bits + word_bits + 32, next_bits)
        else:
            prob, backoff = tables[-1][_packed(bits, values, 16)], np.zeros(len(words), np.float32)
        orders.append((rows[:, ::-1], _log10(prob), _log10(backoff)))
    length = int(np.frombuffer(data, "<u4", 1, at)[0])
    words_text = data[at + 4 : at + 4 + length].decode("utf-8").split("\0")[:-1]
    if len(words_text) != counts[0]:
        raise ValueError(f"{counts[0]} words are announced and {len(words_text)} are there")
    return build(words_text, _closed(orders))


def _closed(
    orders: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Without the n-grams whose beginning is not in the model, which Sphinx's own search cannot reach either."""
    kept = [orders[0]]
    size = len(orders[0][0])
    for rows, probs, backoffs in orders[1:]:
        if rows.shape[1] > 2:
            powers = size ** np.arange(rows.shape[1] - 1)
            has = np.isin(rows[:, :-1] @ powers, kept[-1][0] @ powers)
            rows, probs, backoffs = rows[has], probs[has], backoffs[has]
        kept.append((rows, probs, backoffs))
    return kept


def _log10(values: np.ndarray) -> np.ndarray:
    return np.maximum(values.astype(np.float64) * _TO_LOG10, _FLOOR_LOG10)


def _packed(bits: np.ndarray, offsets: np.ndarray, width: int) -> np.ndarray:
    """Unsigned numbers of ``width`` bits (25 at most) at the given bit offsets, int64."""
    first = offsets >> 3
    padded = np.concatenate([bits, np.zeros(8, np.uint8)])
    word = np.zeros(len(offsets), np.int64)
    for byte in range(4):
        word |= padded[first + byte].astype(np.int64) << (8 * byte)
    return (word >> (offsets & 7)) & ((1 << width) - 1)
