"""A plan as a person reads it on a terminal."""

from __future__ import annotations

from speechtune.corpus.planning.plan import Plan


def plan_text(plan: Plan, most: int = 12) -> str:
    """The plan in lines; at most ``most`` terms and missing words are named."""
    sections = (_volume(plan), _vocabulary(plan), _terms(plan, most), _recording(plan), _labour(plan), _curve(plan))
    lines = [line for section in sections for line in section]
    return "\n".join(lines + [f"note: {note}" for note in plan.notes])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _span(span: tuple[float, float] | None) -> str:
    return "no figure" if span is None else f"{span[0]:.0f} to {span[1]:.0f} % fewer errors"


def _volume(plan: Plan) -> list[str]:
    advice = plan.volume
    lines = [
        f"{plan.corpus}: {sum(plan.rows_by_split.values())} utterances, "
        f"{sum(plan.seconds_by_split.values()) / 3600:.2f} h; "
        f"training {advice.hours:.2f} h of {advice.speakers} speakers",
        f"  goal {advice.goal}: {advice.verdict}",
        f"  volume: {advice.tier}; expected {_span(advice.gain_percent)} ({advice.gain_source})",
    ]
    if advice.target_hours is not None:
        lines.append(f"  at {advice.target_hours:g} h: expected {_span(advice.target_gain_percent)}")
    if advice.speakers_wanted:
        lines.append(f"  speakers wanted at this volume: {advice.speakers_wanted} or more (notebook L5883-5905)")
    lines.append(f"  model size for this volume: {advice.model_size} (notebook L5956-5975)")
    lines += [f"  minimum met: {one}" for one in advice.met_minimums]
    lines += [f"  mind: {one}" for one in advice.caveats]
    for name, one in plan.splits.items():
        lines.append(f"  {name}: {one['minutes']:.1f} min, {one['level']}: {one['meaning']}")
    return lines


def _vocabulary(plan: Plan) -> list[str]:
    lines = ["", f"vocabulary: {plan.vocabulary} words in training"]
    for one in plan.coverages:
        rarest = ", ".join(word for word, _ in one.missing[:8])
        lines.append(
            f"  {one.target}: {one.types_seen} of {one.types} words seen, {_percent(one.out_of_vocabulary_frac)} of "
            f"running words unseen{f' ({rarest})' if rarest else ''}"
        )
    if any(one.out_of_vocabulary_frac is not None for one in plan.growth):
        points = ", ".join(f"{one.texts}: {_percent(one.out_of_vocabulary_frac)}" for one in plan.growth)
        lines.append(f"  unseen running words after so many training texts: {points}")
    return lines


def _terms(plan: Plan, most: int) -> list[str]:
    if not plan.terms:
        return []
    width = max(len(one.term) for one in plan.terms)
    lines = ["", f"{'term':<{width}}  in train  of {plan.instances}  speakers  sentences  begin/middle/end  dev+test"]
    ranked = sorted(plan.terms, key=lambda one: one.instances)
    for one in ranked[:most]:
        spread = "/".join(str(one.positions[name]) for name in ("beginning", "middle", "end"))
        elsewhere = sum(count for split, count in one.by_split.items() if split in ("dev", "test"))
        lines.append(
            f"{one.term:<{width}}  {one.instances:>8}  {min(one.instances / plan.instances, 1):>5.0%}  "
            f"{len(one.speakers):>8}  {len(one.sentences):>9}  {spread:>16}  {elsewhere:>8}"
        )
    if len(ranked) > most:
        lines.append(f"  … and {len(ranked) - most} terms more (--json names all)")
    return lines


def _recording(plan: Plan) -> list[str]:
    one = plan.recording
    if one is None or not one.wanted:
        return []
    lines = [
        "",
        f"to record: {len(one.takes)} takes of {len({take.text for take in one.takes})} sentences, {one.words} words, "
        f"{_percent(one.density_frac)} of them terms",
        f"  about {one.audio_s / 60:.0f} min of audio, {one.recording_s / 60:.0f} min at the microphone: "
        f"{one.sessions} sessions of 30 min, one a day (notebook L5748-5752, L16059-16072)",
    ]
    lines += [f"  still {count} instances short: {term}" for term, count in list(one.unmet.items())[:5]]
    return lines


def _labour(plan: Plan) -> list[str]:
    one = plan.labour
    if one is None:
        return []
    return [
        "",
        f"for {one.audio_hours:.1f} h more audio: {one.recording_hours:.1f} h of recording; "
        "if it is not read from prompts, "
        f"{one.typing_hours:.1f} h of typing (${one.typing_cost_usd:,.0f}) or {one.correcting_hours[0]:.1f} to "
        f"{one.correcting_hours[1]:.1f} h of correcting a draft, or ${one.service_cost_usd[0]:,.0f} to "
        f"${one.service_cost_usd[1]:,.0f} for a service",
        f"  ({one.source})",
    ]


def _curve(plan: Plan) -> list[str]:
    one = plan.curve
    if one is None:
        return []
    low, high = one.interval
    return [
        "",
        f"learning curve of {one.points} runs: WER = {one.scale:.3g} x hours^-{one.exponent:.2f} + {one.floor:.3g}",
        f"  at {one.target_hours:g} h: {one.predicted_wer:.2f} [{low:.2f}, {high:.2f}], "
        f"{_percent(one.relative_cut)} below the largest run",
        *(f"  mind: {note}" for note in one.notes),
    ]
