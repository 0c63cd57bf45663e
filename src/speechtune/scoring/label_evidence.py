"""What the judges' hypotheses say about one label: distances, agreement, and where the two texts part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Any

from rapidfuzz.distance import Levenshtein

from speechtune.corpus.table import Utterance
from speechtune.corpus.text_measures import repeated_phrase
from speechtune.scoring.alignment import Counts, align, char_counts, word_counts
from speechtune.scoring.label_judges import Answer, Judge
from speechtune.scoring.normalisers import Normaliser

_NEVER_SAID_CHARS_PER_S = 35.0
"""No one speaks so fast; a hypothesis beyond it is made up. (Fast English speech is near 25 characters a second.)"""


@dataclass(slots=True, kw_only=True)
class View:
    """One judge's hypothesis beside the label, both normalised; ``unusable`` says why it cannot blame the label."""

    judge: str
    hypothesis: str
    words: Counts
    chars: Counts
    unusable: str | None = None
    lost_at_edge: int = 0
    lost_inside: int = 0
    heard_at_edge: int = 0
    rest_cer: float = 0.0
    answer: Answer

    @property
    def wer(self) -> float:
        """Word error rate of the hypothesis against the label; against an empty label 1, or 0 if both are empty."""
        return _rate(self.words)

    @property
    def cer(self) -> float:
        """The same for characters."""
        return _rate(self.chars)

    @property
    def log_likelihood_ratio(self) -> float | None:
        """Log-probability of the label minus that of the hypothesis, in nats; ``None`` where it is not known."""
        if not self.answer.label or not self.answer.own:
            return None
        return float(self.answer.label["total"] - self.answer.own["total"])


@dataclass(slots=True, kw_only=True)
class Evidence:
    """One utterance: its normalised label and what each judge heard.

    ``agreement``: the mean over pairs of usable judges of 1 - edit distance / longer length, in characters; ``None``
    below two judges. ``length_ratio``: characters of the label per character of the median hypothesis.
    """

    utterance: Utterance
    label: str
    views: list[View]
    missing: str | None = None
    agreement: float | None = None
    length_ratio: float | None = None
    usable: list[View] = field(default_factory=list)

    def best(self, name: str) -> float | None:
        """The lowest rate (``wer`` or ``cer``) over usable judges: one judge that hears the label confirms it."""
        return min((getattr(view, name) for view in self.usable), default=None)

    def middle(self, name: str) -> float | None:
        """The median rate over usable judges."""
        return median(getattr(view, name) for view in self.usable) if self.usable else None

    def likelihood(self, key: str) -> float | None:
        """The highest of a label likelihood (``mean``, ``end``, ``lowest_word_log_prob``) over usable judges."""
        known = [view.answer.label[key] for view in self.usable if view.answer.label]
        return max((value for value in known if value is not None), default=None)

    @property
    def log_likelihood_ratio(self) -> float | None:
        """The highest over usable judges, in nats: near 0 if a judge finds the label as good as what it heard."""
        known = [view.log_likelihood_ratio for view in self.usable]
        return max((value for value in known if value is not None), default=None)


def gather(utterance: Utterance, judges: Sequence[Judge], normalise: Normaliser) -> Evidence:
    """Compare one label with every judge's hypothesis."""
    label = normalise(utterance.text)
    views, problems = [], []
    for judge in judges:
        answer = judge.answers.get(utterance.utterance_id)
        if answer is None or answer.problem:
            problems.append(answer.problem if answer and answer.problem else "no transcript")
            continue
        views.append(look(label, normalise(answer.text), judge.name, answer, utterance))
    found = Evidence(utterance=utterance, label=label, views=views)
    found.usable = [view for view in views if view.unusable is None]
    if not found.usable:
        found.missing = "no judge heard speech" if views else problems[0]
        return found
    pairs = [likeness(a.hypothesis, b.hypothesis) for a, b in combinations(found.usable, 2)]
    found.agreement = sum(pairs) / len(pairs) if pairs else None
    heard = median(len(view.hypothesis) for view in found.usable)
    found.length_ratio = len(label) / heard if heard else None
    return found


def look(label: str, hypothesis: str, judge: str, answer: Answer, utterance: Utterance) -> View:
    """One label and one hypothesis, both normalised."""
    view = View(
        judge=judge,
        hypothesis=hypothesis,
        words=word_counts(label, hypothesis),
        chars=char_counts(label, hypothesis),
        unusable=_unusable(label, hypothesis, answer, utterance),
        answer=answer,
    )
    if view.unusable is None:
        _find_runs(view, label, hypothesis)
    return view


def likeness(a: str, b: str) -> float:
    """1 - edit distance / longer length in characters: 1 for equal texts, 0 for nothing in common."""
    return float(Levenshtein.normalized_similarity(a, b))


def _rate(counts: Counts) -> float:
    return counts.rate if counts.rate is not None else float(counts.insertions > 0)


def _unusable(label: str, hypothesis: str, answer: Answer, utterance: Utterance) -> str | None:
    if not hypothesis:
        return "empty" if label else None
    if "truncated" in answer.flags:
        return "ran into its token limit"
    if repeated_phrase(hypothesis) and not repeated_phrase(label):
        return "loop"
    if len(hypothesis) > _NEVER_SAID_CHARS_PER_S * max(utterance.duration_s, 0.1) and len(hypothesis) > 2 * len(label):
        return "impossible rate"
    return None


def _find_runs(view: View, label: str, hypothesis: str) -> None:
    """Count the words in one run that only one text has: at an edge of the label, inside it, at one of the speech."""
    edits = align(label.split(), hypothesis.split())
    runs: list[tuple[str, int, int]] = []
    for place, edit in enumerate(edits):
        kind = {"delete": "lost", "insert": "heard"}.get(edit.op, edit.op)
        if runs and runs[-1][0] == kind:
            runs[-1] = kind, runs[-1][1], place + 1
        else:
            runs.append((kind, place, place + 1))
    sizes = {(kind, start == 0 or stop == len(edits)): 0 for kind, start, stop in runs}
    longest: tuple[int, int] = (0, 0)
    for kind, start, stop in runs:
        at_edge = start == 0 or stop == len(edits)
        sizes[kind, at_edge] = max(sizes[kind, at_edge], stop - start)
        if kind in ("lost", "heard") and stop - start > longest[1] - longest[0]:
            longest = start, stop
    view.lost_at_edge = sizes.get(("lost", True), 0)
    view.lost_inside = sizes.get(("lost", False), 0)
    view.heard_at_edge = sizes.get(("heard", True), 0)
    rest = [edit for place, edit in enumerate(edits) if not longest[0] <= place < longest[1]]
    counts = char_counts(
        " ".join(edit.ref for edit in rest if edit.ref is not None),
        " ".join(edit.hyp for edit in rest if edit.hyp is not None),
    )
    view.rest_cer = _rate(counts)


def row_of(found: Evidence) -> dict[str, Any]:
    """Numbers of one utterance, rounded, JSON-ready."""
    numbers = {
        "label_wer": found.best("wer"),
        "label_cer": found.best("cer"),
        "median_wer": found.middle("wer"),
        "median_cer": found.middle("cer"),
        "judges_agreement": found.agreement,
        "length_ratio": found.length_ratio,
        "label_likelihood": found.likelihood("mean"),
        "log_likelihood_ratio": found.log_likelihood_ratio,
        "end_log_prob": found.likelihood("end"),
        "lowest_word_log_prob": found.likelihood("lowest_word_log_prob"),
    }
    return {name: None if value is None else round(value, 4) for name, value in numbers.items()}
