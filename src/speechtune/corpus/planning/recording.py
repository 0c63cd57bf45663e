"""Which sentences to record, how often and how long it takes, so that every term is said often enough."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.planning.coverage import TermCounter, read_lines
from speechtune.corpus.text_keys import text_key

WORDS_PER_S = 2.0
"""Pace of natural reading in the notebook's sum (L16071)."""
RECORDING_FACTOR = 3.0
"""Time at the microphone for one unit of usable audio: pauses, re-takes (notebook L5748)."""
SESSION_MINUTES_A_DAY = 30.0
"""Notebook L5752: 30 minutes a day."""
TAKES_LIMIT = 9
"""Takes of one sentence: three paces times three tones (notebook L16046-16052); more would teach the sentence."""

PACES = ("at your normal pace", "faster", "slower")
TONES = ("neutral", "stress the term", "lively")

CARRIERS: dict[str, tuple[str, ...]] = {
    "en": (
        "{term} is the first thing on the list for today.",
        "{term} was the answer that nobody expected this morning.",
        "{term} came up twice in the meeting last week.",
        "{term} is how it was written on the sign.",
        "Somebody wrote {term} at the top of the page.",
        "They talked about {term} for almost an hour yesterday.",
        "Could you spell {term} for me before we go on?",
        "She looked up {term} before she answered the question.",
        "I heard {term} three times in the same story.",
        "We should add {term} to the notes from Monday.",
        "The last word in that message was probably {term}.",
        "He asked me what I had read about {term}.",
        "My next question is going to be about {term}.",
        "It took me a while to remember {term}.",
        "The label on the box only says {term}.",
    )
}
"""Sentences that take any term, in three positions and after varied words (notebook L16022-16036). In each one word in
eight to eleven is the term, within the 10 to 15 % that the notebook recommends (L16038-16044, L16169)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that could be recorded, its number of words, and how often each term occurs in it."""

    text: str
    words: int
    terms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Take:
    """One recording to make: ``take`` counts from 1 within a sentence; ``style`` says how to read it."""

    prompt_id: str
    text: str
    terms: tuple[str, ...]
    take: int
    style: str
    expected_s: float

    def to_row(self) -> dict[str, Any]:
        """A row of ``prompts.jsonl``."""
        return {
            "prompt_id": self.prompt_id,
            "text": self.text,
            "terms": list(self.terms),
            "take": self.take,
            "style": self.style,
            "expected_s": round(self.expected_s, 1),
        }


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """The takes in reading order, and what they cost.

    ``unmet`` holds the instances each term still lacks because there are too few sentences for it.
    """

    takes: tuple[Take, ...]
    wanted: Mapping[str, int]
    planned: Mapping[str, int]
    unmet: Mapping[str, int]
    words: int
    term_words: int

    @property
    def audio_s(self) -> float:
        """Expected seconds of usable audio."""
        return self.words / WORDS_PER_S

    @property
    def recording_s(self) -> float:
        """Expected seconds at the microphone."""
        return self.audio_s * RECORDING_FACTOR

    @property
    def sessions(self) -> int:
        """Sessions of `SESSION_MINUTES_A_DAY`; at one a day, also the days."""
        return -int(-self.recording_s // (60 * SESSION_MINUTES_A_DAY))

    @property
    def density_frac(self) -> float | None:
        """Share of the words to read that belong to a term; ``None`` without takes."""
        return self.term_words / self.words if self.words else None

    def to_json(self) -> dict[str, Any]:
        """Everything but the takes themselves, JSON-ready."""
        return {
            "takes": len(self.takes),
            "sentences": len({take.text for take in self.takes}),
            "words": self.words,
            "density_frac": self.density_frac,
            "audio_minutes": self.audio_s / 60,
            "recording_minutes": self.recording_s / 60,
            "sessions": self.sessions,
            "days_at_one_session": self.sessions,
            "pace": {
                "words_per_s": WORDS_PER_S,
                "recording_factor": RECORDING_FACTOR,
                "session_minutes": SESSION_MINUTES_A_DAY,
                "source": "notebook L16059-16072, L5748-5752",
            },
            "wanted": dict(self.wanted),
            "planned": dict(self.planned),
            "unmet": dict(self.unmet),
        }


def read_carriers(path: Path) -> list[str]:
    """Read carrier sentences, one a line, each with ``{term}`` where the term goes.

    Raises:
        InputError: a line has no ``{term}`` or too many, or there is none.
    """
    carriers = []
    for number, line in enumerate(read_lines(path), start=1):
        sentence = line.strip()
        if not sentence or sentence.startswith("#"):
            continue
        if sentence.count("{term}") != 1 or not text_key(sentence.replace("{term}", "")):
            raise InputError(f"{path} line {number} needs the mark {{term}} once and some words around it")
        carriers.append(sentence)
    if not carriers:
        raise InputError(f"{path} holds no carrier sentence: write one a line, with {{term}} where the term goes")
    return carriers


def candidates(terms: Sequence[str], sentences: Iterable[str], carriers: Sequence[str]) -> list[Candidate]:
    """Every sentence that could be recorded: those given that hold a term, and each term in each carrier."""
    counter = TermCounter(terms)
    found: dict[str, Candidate] = {}
    filled = (_fill(carrier, term) for term in terms for carrier in carriers)
    for text in (*sentences, *filled):
        words = text_key(text).split()
        hits = Counter(term for term, _, _ in counter.find(words))
        term_words = sum(count * len(text_key(term).split()) for term, count in hits.items())
        if hits and term_words < len(words):  # never a term by itself (notebook L16018-16022)
            found.setdefault(" ".join(words), Candidate(text.strip(), len(words), hits))
    return list(found.values())


def _fill(carrier: str, term: str) -> str:
    text = carrier.replace("{term}", term)
    return text[:1].upper() + text[1:] if carrier.startswith("{term}") else text


def plan_recordings(
    missing: Mapping[str, int], possible: Sequence[Candidate], seed: int = 0, takes_limit: int = TAKES_LIMIT
) -> RecordingPlan:
    """Choose takes by greedy set multi-cover until every term has the instances it lacks.

    Each step takes the sentence that gives the most missing instances for each word to read, divided by one more than
    the takes it already has, so that new sentences come before repetitions. The greedy cover is within a factor of
    1 + ln(the most terms a sentence holds) of the best one (Dobson 1982, Mathematics of Operations Research 7:4).

    Args:
        missing: term to the number of instances to add.
        possible: sentences to choose from (`candidates`).
        seed: of the order in which the takes are read.
        takes_limit: most takes of one sentence.
    """
    rng = random.Random(seed)
    need = {term: count for term, count in missing.items() if count > 0}
    wanted = dict(need)
    taken = [0] * len(possible)
    tie = list(range(len(possible)))
    rng.shuffle(tie)

    def value(index: int) -> float:
        gain = sum(min(need.get(term, 0), count) for term, count in possible[index].terms.items())
        return gain / possible[index].words / (1 + taken[index])

    queue = [(-value(index), tie[index], index) for index in range(len(possible))]
    heapq.heapify(queue)
    while queue and any(need.values()):
        promised, order, index = heapq.heappop(queue)
        now = value(index)
        if now <= 0 or taken[index] >= takes_limit:
            continue
        if now < -promised - 1e-12:  # worth less than when it was queued: look again later
            heapq.heappush(queue, (-now, order, index))
            continue
        taken[index] += 1
        for term, count in possible[index].terms.items():
            if term in need:
                need[term] = max(0, need[term] - count)
        heapq.heappush(queue, (-value(index), order, index))
    return _arrange(possible, taken, wanted, {term: count for term, count in need.items() if count}, rng)


def _arrange(
    possible: Sequence[Candidate],
    taken: Sequence[int],
    wanted: Mapping[str, int],
    unmet: Mapping[str, int],
    rng: random.Random,
) -> RecordingPlan:
    """The takes in rounds: every sentence once in a random order before any is read again."""
    planned: Counter[str] = Counter()
    chosen: list[tuple[Candidate, int]] = []
    for round_number in range(max(taken, default=0)):
        this_round = [one for one, count in zip(possible, taken, strict=True) if count > round_number]
        rng.shuffle(this_round)
        chosen += [(one, round_number + 1) for one in this_round]
    takes = []
    words = term_words = 0
    for number, (one, take) in enumerate(chosen, start=1):
        planned.update(one.terms)
        words += one.words
        term_words += sum(count * len(text_key(term).split()) for term, count in one.terms.items())
        style = f"{PACES[(take - 1) % 3]}, {TONES[(take - 1) // 3 % 3]}"
        takes.append(Take(f"p{number:05d}", one.text, tuple(one.terms), take, style, one.words / WORDS_PER_S))
    return RecordingPlan(tuple(takes), wanted, dict(planned), unmet, words, term_words)


def prompts_text(plan: RecordingPlan) -> str:
    """The prompts as a page to read from, divided into sessions."""
    lines = [
        "Read each line once, as you would say it. If you stumble, read the whole line again.",
        "Do not pause before the term. The remark in brackets says how to read the line.",
    ]
    per_session_s = 60 * SESSION_MINUTES_A_DAY / RECORDING_FACTOR
    spent_s = 0.0
    session = 0
    for take in plan.takes:
        if spent_s // per_session_s >= session:
            session += 1
            lines += ["", f"Session {session}", ""]
        spent_s += take.expected_s
        lines.append(f"{take.prompt_id}  [{take.style}]  {take.text}")
    return "\n".join(lines) + "\n"
