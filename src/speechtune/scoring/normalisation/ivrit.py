"""The normaliser of ivrit.ai's Hebrew leaderboard, so that its numbers can be compared.

As in github.com/ivrit-ai/asr-training, evaluate_model.py (0074a7b): direction marks and zero-width characters deleted,
niqqud deleted, straight quotes deleted, then OpenAI's basic normaliser. To judge Hebrew, `hebrew` is better.
"""

from __future__ import annotations

from collections.abc import Callable

from speechtune.scoring.normalisation.rules import Normaliser, Rule
from speechtune.scoring.normalisation.whisper import whisper_basic

_INVISIBLE = "\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
_POINTS = "".join(chr(code) for code in range(0x0591, 0x05C8) if code not in (0x05BE, 0x05C0, 0x05C3, 0x05C6))


def ivrit_leaderboard() -> Normaliser:
    """The pipeline."""
    basic = whisper_basic()
    gone = dict.fromkeys(map(ord, _INVISIBLE + _POINTS + "\"'"))
    rules = (
        Rule("direction-marks", "direction marks and zero-width characters go", _deleting(_INVISIBLE)),
        Rule("niqqud", "points and cantillation marks go", _deleting(_POINTS)),
        Rule("straight-quotes", "straight quotes and apostrophes go", _deleting("\"'")),
        *basic.rules,
    )
    about = "ivrit.ai's leaderboard: niqqud and straight quotes go, then whisper-basic"
    return Normaliser("ivrit-leaderboard", about, rules, lambda text: basic.pieces(text.translate(gone)))


def _deleting(characters: str) -> Callable[[str], str]:
    table = dict.fromkeys(map(ord, characters))
    return lambda text: text.translate(table)
