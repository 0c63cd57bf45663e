"""From evidence to verdicts: which labels are probably wrong and how, which were exchanged, and how many in all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rapidfuzz.distance import Levenshtein

from speechtune.core import intervals
from speechtune.scoring.label_evidence import Evidence, View, likeness, look

KINDS = ("wrong_text", "text_truncated", "audio_truncated", "extra_words", "swapped")
_MAX_SWAP_CANDIDATES = 3000
_NOISE_DRAWS = 400


class VerdictConfig(BaseModel):
    """When a label counts as probably wrong.

    The limits were set on planted errors in children's read speech (docs/label_check.md shows precision and recall).
    """

    model_config = ConfigDict(extra="forbid")

    wrong_cer: float = Field(0.55, gt=0, description="Wrong text: the best judge's CER reaches this, and ...")
    wrong_wer: float = Field(0.6, gt=0, description="... the best judge's WER reaches this.")
    agreed_cer: float = Field(
        0.35, gt=0, description="With judges that agree with each other, this CER and wrong_wer suffice."
    )
    agreement: float = Field(0.8, ge=0, le=1, description="Judges agree from this likeness of their hypotheses on.")
    run_words: int = Field(
        2, ge=1, description="Words in one run that only the label has, or that only the judges heard."
    )
    rest_cer: float = Field(
        0.35, ge=0, description="A run counts if the rest of the two texts differs no more than this."
    )
    confirmed_nats: float = Field(
        8.0,
        ge=0,
        description="A label that a judge finds at most this much less probable than its own hypothesis (natural log) "
        "is not wrong.",
    )
    swap_likeness: float = Field(
        0.6, ge=0, le=1, description="Likeness of an utterance's hypothesis to another's label that makes them a swap."
    )


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What is probably wrong with a label (of `KINDS`; empty: nothing), and whose label it seems to have got.

    ``judge_problems``: judges that looped, heard nothing or ran on, which is no evidence against the label.
    """

    kinds: list[str] = field(default_factory=list)
    belongs_to: str | None = None
    judge_problems: dict[str, str] = field(default_factory=dict)

    @property
    def probably_wrong(self) -> bool:
        """Whether anything speaks against the label."""
        return bool(self.kinds)


def judge_label(found: Evidence, config: VerdictConfig) -> Verdict:
    """The verdict on one label, without swaps."""
    verdict = Verdict(judge_problems={view.judge: view.unusable for view in found.views if view.unusable})
    if not found.usable:
        return verdict
    ratio = found.log_likelihood_ratio
    if ratio is not None and ratio >= -config.confirmed_nats:
        return verdict
    verdict.kinds = _kinds(found.usable, found.agreement, config)
    return verdict


def _kinds(views: Sequence[View], agreement: float | None, config: VerdictConfig) -> list[str]:
    """Kinds of error that all judges see; a run of lost or added words explains a label better than a wrong text."""
    kinds = []
    if min(view.rest_cer for view in views) <= config.rest_cer:
        runs = {"text_truncated": "heard_at_edge", "audio_truncated": "lost_at_edge", "extra_words": "lost_inside"}
        kinds = [kind for kind, name in runs.items() if min(getattr(view, name) for view in views) >= config.run_words]
    if kinds:
        return kinds
    agreed = agreement is not None and agreement >= config.agreement
    cer = config.agreed_cer if agreed else config.wrong_cer
    wrong = min(view.cer for view in views) >= cer and min(view.wer for view in views) >= config.wrong_wer
    return ["wrong_text"] if wrong else []


def find_swaps(evidence: Sequence[Evidence], verdicts: Sequence[Verdict], config: VerdictConfig) -> None:
    """Give ``swapped`` to suspicious utterances whose hypotheses are each other's labels (pairs, and longer circles).

    Labels are assigned to suspicious recordings greedily, the most alike first; an assignment counts where every judge
    that could be used hears it, and where it forms a closed circle. At most 3000 suspicious utterances are looked at.
    """
    places = [place for place, verdict in enumerate(verdicts) if verdict.probably_wrong][:_MAX_SWAP_CANDIDATES]
    likely = []
    for place in places:
        for other in places:
            label = evidence[other].label
            if place != other and label:
                alike = min(likeness(view.hypothesis, label) for view in evidence[place].usable)
                if alike >= config.swap_likeness:
                    likely.append((-alike, place, other))
    given: dict[int, int] = {}
    taken: set[int] = set()
    for _, place, other in sorted(likely):
        if place not in given and other not in taken:
            given[place] = other
            taken.add(other)
    for place in given:
        if _in_circle(place, given):
            verdicts[place].kinds = ["swapped"]
            verdicts[place].belongs_to = evidence[given[place]].utterance.utterance_id


def _in_circle(start: int, given: dict[int, int]) -> bool:
    place = given.get(start)
    for _ in range(len(given)):
        if place is None or place == start:
            break
        place = given.get(place)
    return place == start


def estimate_noise(
    evidence: Sequence[Evidence], verdicts: Sequence[Verdict], config: VerdictConfig, seed: int = 0
) -> dict[str, Any] | None:
    """The share of labels that are wrong, from those that were found and from how many such would have been found.

    Detection is measured on the corpus itself: labels are spoilt in memory (exchanged for another utterance's; cut to
    60 % of the words; with three foreign words put in), and the same rules are applied with the same hypotheses. The
    share of spoilt labels that are found is the recall; flagged / recall is the estimate of Rogan and Gladen (1978,
    American Journal of Epidemiology 107) with no false alarms. As there are some, it is rather too high; where judges
    hear badly, far too high. ``agreed`` counts only labels against which several judges agree, and is rather too low.

    Returns:
        ``None`` where fewer than 20 labels could be checked.
    """
    checked = [(one, verdict) for one, verdict in zip(evidence, verdicts, strict=True) if one.usable and one.label]
    if len(checked) < 20:
        return None
    rng = random.Random(seed)
    sample = rng.sample([one for one, _ in checked], min(len(checked), _NOISE_DRAWS))
    recall = {kind: _recall(sample, kind, config, rng) for kind in ("replaced", "cut", "with_words")}
    flagged = sum(verdict.probably_wrong for _, verdict in checked)
    agreed = sum(
        verdict.probably_wrong and one.agreement is not None and one.agreement >= config.agreement
        for one, verdict in checked
    )
    mean = sum(recall.values()) / len(recall)
    share = min(1.0, flagged / len(checked) / mean) if mean else None
    low, high = wilson(flagged, len(checked))
    return {
        "checked": len(checked),
        "flagged": flagged,
        "recall_on_spoilt_labels": {kind: round(value, 4) for kind, value in recall.items()},
        "estimated_share": None if share is None else round(share, 4),
        "interval": [round(min(1.0, bound / mean), 4) for bound in (low, high)] if mean else None,
        "agreed_share": round(agreed / len(checked), 4)
        if any(one.agreement is not None for one, _ in checked)
        else None,
        "method": "flagged share / recall on labels spoilt in memory (Rogan-Gladen without false alarms)",
    }


def _recall(sample: Sequence[Evidence], kind: str, config: VerdictConfig, rng: random.Random) -> float:
    found = tried = 0
    for one in sample:
        label = _spoilt(one.label, kind, sample, rng)
        if label is None:
            continue
        tried += 1
        views = [look(label, view.hypothesis, view.judge, view.answer, one.utterance) for view in one.usable]
        views = [view for view in views if view.unusable is None]
        found += bool(views) and bool(_kinds(views, one.agreement, config))
    return found / tried if tried else 0.0


def _spoilt(label: str, kind: str, sample: Sequence[Evidence], rng: random.Random) -> str | None:
    words = label.split()
    other = rng.choice(sample).label
    if Levenshtein.normalized_similarity(label, other) > 0.7:
        return None
    if kind == "replaced":
        return other
    if kind == "cut":
        return " ".join(words[: math.ceil(0.6 * len(words))]) if len(words) >= 4 else None
    place = rng.randint(0, len(words))
    return " ".join([*words[:place], *other.split()[:3], *words[place:]])


def wilson(found: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """`intervals.wilson`, anything at all where there is nothing to count."""
    return intervals.wilson(found, total, z) if total else (0.0, 1.0)
