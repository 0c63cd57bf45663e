"""The confidences of compared systems on their page: a reliability plot of each, and a table."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from speechtune.report.wording import percent
from speechtune.scoring.calibration import KINDS, Calibration, Kind
from speechtune.scoring.comparison import SystemComparison

_SIDE, _LEFT, _RIGHT, _TOP, _BOTTOM = 300, 48, 12, 10, 40
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEAST_RADIUS, _MORE_RADIUS = 2.5, 5.0


@dataclass(frozen=True, slots=True)
class Reliability:
    """One system's plot and its measures."""

    name: str
    chart: Markup
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Confidences:
    """The section: which confidences, and every system that carries them. ``surest`` has the lowest NLL."""

    kind: Kind
    about: str
    systems: list[Reliability]
    surest: str | None


def confidences(found: SystemComparison) -> Confidences | None:
    """The kind that all systems carry, else one that any of them does; ``None`` where there is none."""
    common = found.confidence_kind()
    carried = [kind for kind in ("utterance-sum", "utterance-mean") for one in found.systems if kind in one.calibration]
    kind: Kind | None = common or next((kind for kind in KINDS if kind in carried), None)
    if kind is None:
        return None
    systems = [
        Reliability(one.name, reliability_plot(one.name, one.calibration[kind]), one.calibration[kind])
        for one in found.systems
        if kind in one.calibration
    ]
    surest = min(systems, key=lambda one: one.calibration.nll).name if common else None
    return Confidences(kind, KINDS[kind], systems, surest)


def reliability_plot(name: str, calibration: Calibration) -> Markup:
    """What came true against what was promised, a dot for each bin; on the dotted diagonal promises are kept.

    A dot's area grows with the number of utterances in its bin.
    """
    points = [
        (one.confidence, one.accuracy, one.count)
        for one in calibration.bins
        if one.confidence is not None and one.accuracy is not None
    ]
    largest = max(count for _, _, count in points)
    said = ", ".join(f"{percent(promised)} promised {percent(came)} right" for promised, came, _ in points)
    label = escape(f"Reliability of {name}: {said}")
    parts = [f'<svg class="curve" role="img" aria-label="{label}" viewBox="0 0 {_SIDE} {_SIDE}">']
    for tick in _TICKS:
        x, y, text = _x(tick), _y(tick), f"{100 * tick:g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_SIDE - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text class="tick" x="{x}" y="{_SIDE - _BOTTOM + 16}" text-anchor="middle">{text}</text>')
    parts.append(f'<line class="mark" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    outline = " ".join(f"{_x(promised)},{_y(came)}" for promised, came, _ in points)
    parts.append(f'<polyline class="line" points="{outline}"/>')
    for promised, came, count in points:
        radius = _LEAST_RADIUS + _MORE_RADIUS * (count / largest) ** 0.5 / 2
        parts.append(f'<circle class="dot after" cx="{_x(promised)}" cy="{_y(came)}" r="{radius:.1f}"/>')
    middle = (_LEFT + _SIDE - _RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:g}" y="{_SIDE - 6}" text-anchor="middle">confidence, %</text>')
    height = (_TOP + _SIDE - _BOTTOM) / 2
    turned = f'transform="rotate(-90 11 {height:g})"'
    parts.append(f'<text class="tick" x="11" y="{height:g}" text-anchor="middle" {turned}>right, %</text>')
    return Markup("".join([*parts, "</svg>"]))


def _x(share: float) -> str:
    return f"{_LEFT + share * (_SIDE - _LEFT - _RIGHT):.1f}"


def _y(share: float) -> str:
    return f"{_SIDE - _BOTTOM - share * (_SIDE - _TOP - _BOTTOM):.1f}"
