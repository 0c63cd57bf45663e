"""The catalogue's results as text for a terminal."""

from __future__ import annotations

from typing import Any

from speechtune.models.catalogue.describe import Description
from speechtune.models.catalogue.recommend import Needs, Recommendation


def list_as_text(rows: list[dict[str, Any]]) -> str:
    """The table of `speechtune models list`."""
    lines = [f"{'name':24} {'params':>8} {'languages':16} {'licence':14} {'here':5} {'trains':6} source"]
    for row in rows:
        size = f"{row['parameters_m']:g} M" if row["parameters_m"] else "-"
        here, trains = ("yes" if row["path"] else "no"), ("yes" if row["loadable"] else "no")
        licence = (row["licence"] or "-").split(" ")[0]
        lines.append(
            f"{row['name']:24} {size:>8} {row['languages'] or '-':16} {licence:14} {here:5} {trains:6} {row['source']}"
        )
    lines.append("more of one: speechtune models describe NAME; which to try: speechtune models recommend")
    return "\n".join(lines)


def description_as_text(found: Description) -> str:
    """What `speechtune models describe` prints."""
    where = f" ({found.path})" if found.path else ""
    lines = [f"{found.name}: {found.family}, {found.parameters / 1e6:,.1f} M parameters{where}"]
    told = {key.replace("_", " "): value for key, value in found.facts.items() if value not in (None, [])}
    lines += [f"  {key}: {_word(value)}" for key, value in told.items()]
    if found.parts:
        lines.append("parts:")
        lines += [f"  {name:28} {count:>14,}" for name, count in found.parts.items()]
        lines.append("stored as: " + ", ".join(f"{kind} {count:,}" for kind, count in found.stored_as.items()))
    if found.limits:
        lines.append("limits: " + ", ".join(f"{key} {_word(v)}" for key, v in found.limits.items() if v is not None))
    if found.languages:
        lines.append(f"languages ({len(found.languages)}): " + " ".join(found.languages))
    if found.can:
        skip = ("title", "loss", "frames_per_second", "audio_in_decoder")
        lines.append("can: " + ", ".join(_ability(k, v) for k, v in found.can.items() if v and k not in skip))
    lines.append("memory, estimated (docs/models.md says how):")
    each = ", ".join(f"{precision} {gib:.2f}" for precision, gib in found.inference_gib.items())
    lines.append(f"  decoding one clip, GiB: {each}")
    batch = found.batch
    size = f"{batch.clips} clips of {batch.seconds:g} s" if found.parts else "1 GiB of activations"
    lines.append(f"  training, {size}, GiB:")
    lines += [f"    {one.gib:7.2f}  {one.way:28} {one.recipe}" for one in found.training]
    if found.published:
        lines.append("published:")
        for one in found.published:
            value = f"{one['mb']:g} MB" if one["kind"] == "memory" else f"{one['value']:g}"
            rest = [one[key] for key in ("unit", "hardware", "runtime", "precision", "test_set") if key in one]
            lines.append(f"  {one['kind'].replace('_', ' ')} {value} {', '.join(rest)} [{one['source']}]")
    lines += [f"erratum: {one}" for one in found.errata]
    return "\n".join(lines)


def recommendation_as_text(found: Recommendation, needs: Needs) -> str:
    """What `speechtune models recommend` prints; the last line is the baseline command."""
    given = [f"{needs.hours:.3g} h"] if needs.hours is not None else []
    given += [" and ".join(needs.languages)] if needs.languages else []
    given += [f"{needs.speakers} speakers"] if needs.speakers is not None else []
    if needs.gpu_gb is not None:
        given.append(f"GPU with {needs.gpu_gb:g} GB")
    elif needs.ram_gb is not None:
        given.append(f"no GPU, {needs.ram_gb:g} GB")
    lines = [f"purpose: {found.purpose}" + (f" ({', '.join(given)})" if given else "")]
    for place, one in enumerate(found.candidates, start=1):
        lines.append(f"{place}. {one.name}: {one.parameters_m:g} M, {one.licence}, evidence: {one.evidence}")
        lines += [f"   {reason.text} [{reason.source}]" for reason in one.reasons]
        if one.ways:
            lines.append(f"   trains here as: {one.ways[0].way} ({one.ways[0].gib:.1f} GiB; {one.ways[0].recipe})")
    lines += [f"mind: {one.text} [{one.source}]" for one in found.remarks]
    lines += [f"[{key}] {what}" for key, what in found.sources.items()]
    lines.append(f"sure: {found.sure}, because " + "; ".join(found.why_not_surer))
    lines.append("measure on your own data:")
    return "\n".join([*lines, *(f"  {one}" for one in found.commands)])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _ability(name: str, value: Any) -> str:
    word = name.replace("_", " ")
    return word if value is True else f"{word} ({_word(value)})"
