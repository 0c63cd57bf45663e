"""Texts and pairs of texts drawn from a seed: many alphabets, empty and degenerate ones, what the rules look for."""

# ruff: noqa: RUF001, SIM905

from __future__ import annotations

import random

from speechtune.scoring.normalisation.english_numbers import WORDS

NUMBERS = sorted(WORDS)
PLAIN = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "then",
    "she",
    "went",
    "to",
    "school",
    "with",
    "her",
    "friends",
    "because",
    "they",
    "like",
    "red",
    "apples",
    "so",
    "much",
    "dog",
    "goed",
    "tooths",
    "gooder",
    "colour",
    "centre",
    "travelled",
    "axe",
    "grey",
]
ODD = [
    *"um uh hmm mm um's 's ' it's he'd won't can't i'ma y'all o'clock 'cause don't rock'n'roll n't mm'hm".split(),
    *"um. uh,um cat's".split(),
    *"been gone done got mr st dr jr 5 1 1s 2nd 21 st 1,000 3.5 $5 €3 ¢7 $0.05 50% % $ half x-ray uh-huh".split(),
    *"[laughs] (noise) <unk> ( ) < > [ ] naïve Straße ÉCOLE नमस्ते 你好 שלום مرحبا ... . 5. a.b 3.x ١٢ २".split(),
    *"½ ² ﬁ № ´".split(),
    *"İstanbul ΣΑΣ 1960s 274th 10.0 0 007 -5 +7 £ a% %5 1. 1' 5,6,7 ﷺ K Å HELLO World. 🙂 a\u0301 \u0301".split(),
    *("it's been", "he'd gone", "she's got", "and a half", "$2 and ¢7", "double oh seven", "minus 3"),
    *("\u00a0", "\t", "\u2028"),
]
ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "אבגדהוזחטיכלמנסעפצקרשתםןףךץ",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "कखगघचछजझटठडढणतथदधनपफबभमयरलवशसहािीुूेैोौं्",
    "あいうえおかきくけこアイウエオ漢字仮名交",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "가나다라마바사아자차카타파하",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "กขคงจฉชซญดตถทนบปผฝพฟมยรลวสหอะาิีึืุู",
]


def english_text(draw: random.Random) -> str:
    """A short text that is likely to meet the English rules, or anything at all."""
    kind = draw.random()
    if kind < 0.2:
        return " ".join(draw.choices([*PLAIN, "um", "one"], k=draw.randint(0, 9)))
    if kind < 0.5:
        gap = draw.choice([" ", " ", "  "])
        return gap.join(draw.choices([*NUMBERS, "the", "5", "3.5", "12", "and a half"], k=draw.randint(1, 6)))
    if kind < 0.75:
        return " ".join(draw.choices(ODD + PLAIN + NUMBERS[:40], k=draw.randint(1, 6)))
    if kind < 0.85:
        return "".join(draw.choices([*ODD, " ", " ", "'", ".", ","], k=draw.randint(1, 7)))
    if kind < 0.95:
        return "".join(draw.choices("abc 0123459 .,'$%¢€£-+ ()[]<> smtnd\n", k=draw.randint(0, 20)))
    return "".join(chr(_code(draw)) for _ in range(draw.randint(0, 10)))


def _code(draw: random.Random) -> int:
    return draw.choice([draw.randint(32, 0x2FFF), draw.randint(32, 0xD7FF), draw.randint(0xE000, 0x1FFFF)])


def pair(draw: random.Random) -> tuple[str, str]:
    """A reference and a hypothesis of one alphabet: empty, equal, unlike, or with some errors."""
    letters = draw.choice(ALPHABETS)
    vocabulary = ["".join(draw.choices(letters, k=draw.randint(1, 4))) for _ in range(draw.randint(1, 12))]
    reference = draw.choices(vocabulary, k=draw.choice([0, 1, 2, 5, 9, 14]))
    kind = draw.random()
    if kind < 0.05:
        return " ".join(reference), ""
    if kind < 0.15:
        return " ".join(reference), " ".join(reference)
    if kind < 0.3:
        return " ".join(reference), " ".join(draw.choices(vocabulary, k=draw.randint(0, 14)))
    heard: list[str] = []
    for word in reference:
        chance = draw.random()
        heard += [] if chance < 0.1 else [draw.choice(vocabulary)] if chance < 0.3 else [word]
        heard += [draw.choice(vocabulary)] * (draw.random() < 0.1)
    return " ".join(reference), " ".join(heard)
