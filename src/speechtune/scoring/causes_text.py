"""Causes of errors as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speechtune.scoring.causes_classes import CLASSES

if TYPE_CHECKING:
    from speechtune.scoring.causes import Causes, Example

_SHOWN_PAIRS = 10


def causes_as_text(causes: Causes) -> str:
    """The classes with an error (most errors first), the most frequent confusions, and the worst speakers."""
    lines = [f"causes of the {causes.errors} word errors:", f"  {'class':<18} errors   share  sub / del / ins"]
    order = sorted(causes.classes.values(), key=lambda one: (-one.errors, list(CLASSES).index(one.name)))
    for one in order:
        if one.errors:
            kinds = f"{one.substitutions} / {one.deletions} / {one.insertions}"
            lines.append(f"  {one.name:<18} {one.errors:>6}  {100 * one.errors / causes.errors:>5.1f} %  {kinds}")
            lines += [_example(example) for example in one.examples[:2]]
    if causes.hidden.utterances:
        lines.append(
            f"  not counted in the WER: {causes.hidden.utterances} utterances ({causes.hidden.errors} words) "
            "differ only in what the normaliser takes away"
        )
    if causes.pairs:
        lines += ["most frequent confusions (reference > output, times, of how often it was said):"]
        for pair in causes.pairs[:_SHOWN_PAIRS]:
            said = f" of {pair.said}" if pair.ref is not None else ""
            lines.append(f"  {pair.ref or '-'} > {pair.hyp or '-'}  {pair.count}{said}  {pair.cause}")
    if causes.speakers:
        lines += ["speakers with the most errors beyond the corpus's rate:"]
        for speaker in causes.speakers:
            sure = f"[{100 * speaker.interval.low:.1f}, {100 * speaker.interval.high:.1f}]" if speaker.interval else "-"
            rate = f"{100 * speaker.counts.rate:.1f} %" if speaker.counts.rate is not None else "-"
            lines.append(
                f"  {speaker.speaker_id}  WER {rate} {sure}, {speaker.utterances} utterances, "
                f"{speaker.excess:.1f} errors more than average"
            )
    return "\n".join([*lines, *(f"note: {note}" for note in causes.notes)])


def _example(one: Example) -> str:
    return f"      {one.reference}  >  {one.hypothesis}   ({one.utterance_id})"
