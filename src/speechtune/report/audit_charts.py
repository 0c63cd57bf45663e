"""Charts of an audit as SVG text: histograms with limits, bars, and growth curves. Pure functions of their data.

Coordinates follow `report.charts`: bars are in per cent of the page's width, histograms and curves have a fixed view
box. Colour repeats what a label or a place says already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from speechtune.report.charts import nice_ticks

WIDTH = 360
_LEFT, _RIGHT = 10, 10
_OVERALL_PX, _SPLIT_PX, _LABEL_PX, _LIMIT_PX, _AXIS_PX = 84, 34, 16, 14, 22
_REACH = 0.6
"""A limit is drawn if it lies within this share of the occupied range beyond it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold of a measure: values above (or below) it are a problem of this severity."""

    value: float
    severity: str
    above: bool

    def words(self, unit: str = "") -> str:
        """Such as ``error above 30 s``."""
        return (
            f"{self.severity} {'above' if self.above else 'below'} {plain(self.value)}{chr(160) + unit if unit else ''}"
        )


def plain(value: float, digits: int = 4) -> str:
    """A number in so many significant digits at most, with a thin space between thousands and a true minus."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def limits_in_view(
    edges: Sequence[float], counts: Sequence[int], limits: Sequence[Limit]
) -> tuple[float, float, list[Limit], list[Limit]]:
    """The range to draw, the limits in it, and those too far away."""
    taken = [index for index, count in enumerate(counts) if count]
    low, high = (edges[taken[0]], edges[taken[-1] + 1]) if taken else (edges[0], edges[-1])
    reach = _REACH * (high - low)
    near = [one for one in limits if low - reach <= one.value <= high + reach]
    low = max(edges[0], min([low, *(one.value - 0.04 * (high - low) for one in near)]))
    high = min(edges[-1], max([high, *(one.value + 0.04 * (high - low) for one in near)]))
    near = [one for one in near if low <= one.value <= high]
    return low, high, near, [one for one in limits if one not in near]


def histogram(
    edges: Sequence[float],
    rows: Sequence[tuple[str, Sequence[int]]],
    limits: Sequence[Limit],
    unit: str,
    description: str,
) -> str:
    """Counts by bin, one row for each of (label, counts), the first (overall) tallest, on a common axis.

    Each row has its own scale, so that a small split can be compared with a large one. Bins with a single count are
    still visible. Limits are dashed lines over a shaded side.

    Args:
        edges: one more than there are bins.
        rows: at least one.
        limits: thresholds; those far from every value are left out (`limits_in_view` names them).
        unit: of the values.
        description: what a person who cannot see it should hear.
    """
    low, high, near, _ = limits_in_view(edges, rows[0][1], limits)
    near = sorted(near, key=lambda one: one.value)
    top = _LIMIT_PX * len(near) + 4
    bottom = top + sum(_LABEL_PX + (_SPLIT_PX if index else _OVERALL_PX) for index in range(len(rows)))
    x = _Axis(low, high)
    parts = [
        f'<svg class="curve" role="img" aria-label="{escape(description)}" viewBox="0 0 {WIDTH} {bottom + _AXIS_PX}">'
    ]
    parts += [line for index, one in enumerate(near) for line in _limit(x, one, index, top, bottom, unit)]
    base = top
    for index, (label, counts) in enumerate(rows):
        base += _LABEL_PX + (_SPLIT_PX if index else _OVERALL_PX)
        parts += _bars(x, edges, counts, base, _SPLIT_PX if index else _OVERALL_PX, label)
    for tick in nice_ticks(low, high, 6):
        if low - 1e-9 <= tick <= high + 1e-9:
            parts.append(
                f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{plain(tick)}</text>'
            )
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _limit(x: _Axis, one: Limit, index: int, top: int, bottom: int, unit: str) -> Iterable[str]:
    at = x(one.value)
    start, end = (at, WIDTH - _RIGHT) if one.above else (_LEFT, at)
    y = _LIMIT_PX * (index + 1) - 3
    to_right = at < WIDTH / 2
    anchor, shift = ("start", 4) if to_right else ("end", -4)
    size = f'width="{end - start:.1f}" height="{bottom - top}"'
    yield f'<rect class="zone {one.severity}" x="{start:.1f}" y="{top}" {size}/>'
    yield f'<line class="limit {one.severity}" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 9}" y2="{bottom}"/>'
    words = escape(one.words(unit))
    yield f'<text class="tick" x="{at + shift:.1f}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _bars(x: _Axis, edges: Sequence[float], counts: Sequence[int], base: int, height: int, label: str) -> Iterable[str]:
    most, total = max(counts, default=0) or 1, sum(counts)
    yield f'<text class="tick halo" x="{_LEFT}" y="{base - height - 3}">{escape(label)} \u00b7 {plain(total)}</text>'
    yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    for index, count in enumerate(counts):
        if count:
            left, right = x(edges[index]), x(edges[index + 1])
            tall = max(1.5, (height - 6) * count / most)
            yield (
                f'<rect class="bar" x="{left:.1f}" y="{base - tall:.1f}" '
                f'width="{max(right - left - 0.7, 0.7):.1f}" height="{tall:.1f}"/>'
            )


_ROW_PX = 38


def bar_rows(rows: Sequence[tuple[str, str, float]], description: str) -> str:
    """One bar for each (label, detail, value), under its label; all start at zero. Empty without rows."""
    most = max((value for _, _, value in rows), default=0.0)
    if not rows or most <= 0:
        return ""
    parts = [f'<svg class="rows" role="img" aria-label="{escape(description)}" height="{_ROW_PX * len(rows)}">']
    for index, (label, detail, value) in enumerate(rows):
        top = index * _ROW_PX
        parts.append(
            f'<text y="{top + 14}"><tspan class="name">{escape(label)}</tspan> '
            f'<tspan class="detail">{escape(detail)}</tspan></text>'
            f'<rect class="bar" x="0" y="{top + 20}" width="{max(0.3, 100 * value / most):.2f}%" height="9" rx="1"/>'
        )
    return "".join([*parts, "</svg>"])


def columns(values: Sequence[float], top_label: str, ends: tuple[str, str], description: str) -> str:
    """Upright bars next to each other with the label of the tallest above and of the ends below; empty without any."""
    most = max(values, default=0.0)
    if most <= 0:
        return ""
    parts = [f'<svg class="rows" role="img" aria-label="{escape(description)}" height="152">']
    parts.append(f'<text class="tick" x="0" y="12">{escape(top_label)}</text>')
    width = 100 / max(len(values), 12)
    for index, value in enumerate(values):
        tall = max(1.0, 110 * value / most)
        parts.append(
            f'<rect class="bar" x="{index * width:.3f}%" y="{130 - tall:.1f}" width="{0.82 * width:.3f}%" '
            f'height="{tall:.1f}"/>'
        )
    parts.append(f'<text class="tick" x="0" y="147">{escape(ends[0])}</text>')
    if ends[1]:
        last = min(100.0, len(values) * width)
        anchor = "end" if last > 40 else "start"
        parts.append(f'<text class="tick" x="{last:.2f}%" y="147" text-anchor="{anchor}">{escape(ends[1])}</text>')
    return "".join([*parts, "</svg>"])


def growth(points: Sequence[tuple[float, float]], in_percent: bool, description: str) -> str:
    """A curve over the share of the training data from zero to all of it."""
    height, left, bottom = 190, 46, 34
    factor = 100.0 if in_percent else 1.0
    ticks = nice_ticks(0.0, max((factor * y for _, y in points), default=0.0) or 1.0, 4)

    def at(x: float, y: float) -> str:
        tall = height - bottom - 12
        return f"{left + x * (WIDTH - left - 14):.1f},{height - bottom - factor * y / ticks[-1] * tall:.1f}"

    parts = [f'<svg class="curve" role="img" aria-label="{escape(description)}" viewBox="0 0 {WIDTH} {height}">']
    for tick in ticks:
        y = at(0, tick / factor).split(",")[1]
        label = f"{plain(tick)}{chr(160) + '%' if in_percent else ''}"
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 14}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{left - 5}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x_label = at(share, 0).split(",")[0]
        parts.append(
            f'<text class="tick" x="{x_label}" y="{height - 18}" text-anchor="middle">{100 * share:g}\u00a0%</text>'
        )
    parts.append(f'<text class="tick" x="{WIDTH - 14}" y="{height - 3}" text-anchor="end">of train</text>')
    parts.append(f'<polyline class="line" points="{" ".join(at(x, y) for x, y in points)}"/>')
    for place, height_of in points:
        cx, cy = at(place, height_of).split(",")
        parts.append(f'<circle class="dot after" cx="{cx}" cy="{cy}" r="3"/>')
    return "".join([*parts, "</svg>"])
