"""Pieces of a long recording whose text is too short for their speech, decoded again one pause after another.

A model that was trained on single sentences may end after the first one of a piece that holds several. No times are
needed to see it: fewer letters a second of speech than people say. The parts stand where they say more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.corpus.segmentation.cuts import Span
from speechtune.decoding.long.pieces import Piece, PiecePlan, Scan, plan_pieces
from speechtune.decoding.search_blocks import FallbackConfig
from speechtune.decoding.searching import compression_ratio
from speechtune.decoding.transcript import Transcript

LEAST_LETTERS_PER_S = 8.0
"""Of speech without its pauses. Of 1160 clips of children who read English as a foreign language (speechocean762) the
mean is 11; slower speech costs a second decoding, and nothing else unless that finds more words."""
LEAST_SHARE = 0.8
"""Of the rate that three quarters of the recording's pieces keep below: a piece far behind the others is suspicious
however fast the speaker is (own choice)."""
LEAST_SPEECH_S = 2.0
_MORE_WORDS = 2
PART_S = 3.0
"""Parts are about as long as a sentence: models trained on sentences loop on fragments of a second."""
_MOST_LETTERS_PER_S = 25.0
"""More than anybody says: `speechtune.decoding.guards_config`."""


def parts_of(pieces: Sequence[tuple[Piece, Transcript]], found: Scan, plan: PiecePlan) -> list[list[Span]]:
    """For each piece the parts that it is decoded in again, in samples: none where its text is long enough.

    Args:
        pieces: of one recording, with what was found in them.
        found: the recording's speech.
        plan: how the pieces were made.
    """
    inside = [
        [(max(a, first), min(b, last)) for first, last in piece.spans for a, b in found.spans if a < last and b > first]
        for piece, _ in pieces
    ]
    speech_s = np.array([sum(b - a for a, b in own) / SAMPLE_RATE_HZ for own in inside])
    letters = np.array([sum(not letter.isspace() for letter in one.text) for _, one in pieces])
    rates = letters / np.maximum(speech_s, 1e-3)
    enough = speech_s >= LEAST_SPEECH_S
    usual = float(np.quantile(rates[enough], 0.75)) if enough.any() else 0.0
    slow = enough & (rates < max(LEAST_LETTERS_PER_S, LEAST_SHARE * usual))
    single = replace(plan, target_s=min(PART_S, plan.target_s / 2))
    result: list[list[Span]] = []
    for (piece, _), own, suspicious in zip(pieces, inside, slow, strict=True):
        planned = plan_pieces(Scan(own, found.energy_db), piece.end, single) if suspicious and len(own) > 1 else []
        result.append([(max(a, piece.start), min(b, piece.end)) for a, b in planned])
    return result


def say_more(before: Transcript, parts: Sequence[Transcript], spans: Sequence[Span], ladder: FallbackConfig) -> bool:
    """Whether the parts of a piece say more than it did, and none of them is a loop, a guess or impossibly fast."""
    words = sum(len(one.text.split()) for one in parts)
    more = words >= len(before.text.split()) + _MORE_WORDS
    return more and all(_believed(one, span, ladder) for one, span in zip(parts, spans, strict=True))


def _believed(one: Transcript, span: Span, ladder: FallbackConfig) -> bool:
    if not one.text:
        return True
    looping = ladder.compression_ratio is not None and compression_ratio(one.text) > ladder.compression_ratio
    guessed = ladder.log_prob is not None and one.log_prob is not None and one.log_prob < ladder.log_prob
    letters = sum(not letter.isspace() for letter in one.text)
    fast = letters * SAMPLE_RATE_HZ > _MOST_LETTERS_PER_S * (span[1] - span[0])
    return not (looping or guessed or fast or "truncated" in one.flags)
