"""Charts as SVG text: pure functions of their data, the same bytes for the same numbers.

Row charts use coordinates in per cent, so that they are as wide as the page and their text keeps its size; curves use
a fixed view box. Colours come from CSS classes. *Before* is a hollow circle and *after* a filled one, so that a chart
can be read without colour. Rates are fractions and drawn in per cent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Dot:
    """One estimate with its interval, as fractions; ``value`` is ``None`` where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    filled: bool = False


@dataclass(frozen=True, slots=True)
class DotRow:
    """A line of text above one or two dots."""

    label: str
    detail: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A measured quantity against the epoch; ``band`` is (epoch, low, high), ``marked`` one epoch to point out."""

    title: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    marked: tuple[float, str] | None = None
    in_percent: bool = False
    dotted: bool = False


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover ``low`` to ``high``, ends included."""
    span = high - low
    if not span > 0:
        span = abs(high) or 1.0
        high = low + span
    exponent = math.floor(math.log10(span / about))
    steps = [factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 2.5, 5)]
    step = next(step for step in steps if span / step <= about + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


_ROW_PX = 46
_AXIS_PX = 26
_BEYOND = 1.3
"""Intervals are drawn up to this multiple of the largest estimate."""


def dot_whisker(rows: Sequence[DotRow], description: str) -> str:
    """Estimates with their intervals, one row each, on a common axis in per cent that starts at zero.

    Two dots in a row are drawn one above the other and joined by a line. Rows without a value are left out. An interval
    that reaches far beyond every estimate is cut at the end of the axis and ends in an arrow.

    Args:
        rows: at least one dot has a value, else the result is empty.
        description: what a person who cannot see it should hear.
    """
    rows = [row for row in rows if any(_is_number(dot.value) for dot in row.dots)]
    dots = [dot for row in rows for dot in row.dots]
    values = [dot.value for dot in dots if dot.value is not None and math.isfinite(dot.value)]
    if not values:
        return ""
    highs = [dot.high for dot in dots if dot.high is not None and math.isfinite(dot.high)]
    ticks = nice_ticks(0.0, max(min(max([*values, *highs]), _BEYOND * max(values)), 0.01))
    height = _ROW_PX * len(rows) + _AXIS_PX
    parts = [_open("rows", description, f'height="{height}"')]
    for tick in ticks:
        x = _share(tick, ticks[-1])
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - _AXIS_PX}"/>')
        label = f"{_plain(100 * tick)}{' %' if tick == ticks[-1] else ''}"
        parts.append(f'<text class="tick" x="{x}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for index, row in enumerate(rows):
        parts += _dot_row(row, index * _ROW_PX, ticks[-1])
    return "".join([*parts, "</svg>"])


def _dot_row(row: DotRow, top: int, largest: float) -> Iterable[str]:
    yield (
        f'<text class="label" y="{top + 16}"><tspan class="name">{escape(row.label)}</tspan> '
        f'<tspan class="detail">{escape(row.detail)}</tspan></text>'
    )
    shown = [dot for dot in row.dots if _is_number(dot.value)]
    heights = [top + 31] if len(row.dots) == 1 else [top + 27, top + 37]
    places = [(dot, y) for dot, y in zip(row.dots, heights, strict=False) if dot in shown]
    if len(places) == 2:
        (one, y1), (other, y2) = places
        yield (
            f'<line class="joint" x1="{_share(one.value, largest)}" x2="{_share(other.value, largest)}" '
            f'y1="{y1}" y2="{y2}"/>'
        )
    for dot, y in places:
        kind = "after" if dot.filled else "before"
        if _is_number(dot.low) and _is_number(dot.high):
            yield from _interval(kind, dot.low or 0.0, dot.high or 0.0, y, largest)
        yield f'<circle class="dot {kind}" cx="{_share(dot.value, largest)}" cy="{y}" r="4.5"/>'


def _interval(kind: str, low: float, high: float, y: int, largest: float) -> Iterable[str]:
    cut = high > largest
    start, end = _share(min(low, largest), largest), _share(min(high, largest), largest)
    yield f'<line class="whisker {kind}" x1="{start}" x2="{end}" y1="{y}" y2="{y}"/>'
    for at in (start,) if cut else (start, end):
        yield f'<line class="whisker {kind}" x1="{at}" x2="{at}" y1="{y - 3}" y2="{y + 3}"/>'
    if cut:
        yield f'<text class="tick" x="{end}" y="{y + 4}" dx="-3">▸</text>'


_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 16, 34


def line_chart(curve: Curve, description: str) -> str:
    """A curve over epochs from zero on, with an optional band and a marked epoch; empty without a finite value.

    A value that is not finite breaks the line.
    """
    finite = [(x, y) for x, y in curve.points if math.isfinite(y)]
    band = [one for one in curve.band if all(map(math.isfinite, one))]
    if not finite:
        return ""
    values = [y for _, y in finite] + [end for _, low, high in band for end in (low, high)]
    y_ticks = nice_ticks(min(0.0, *values), max(*values, 0.0), 4)
    x_ticks = nice_ticks(0.0, max(x for x, _ in curve.points), 5)
    frame = _Frame(x_ticks[-1], y_ticks[0], y_ticks[-1])
    parts = [_open("curve", description, f'viewBox="0 0 {_WIDTH} {_HEIGHT}"')]
    parts += _axes(frame, x_ticks, y_ticks, curve.in_percent)
    if band:
        outline = [frame.at(x, high) for x, _, high in band] + [frame.at(x, low) for x, low, _ in reversed(band)]
        parts.append(f'<polygon class="band" points="{" ".join(outline)}"/>')
        parts += [_whisker(frame, *one) for one in band]
    if curve.marked:
        parts += _mark(frame, *curve.marked)
    for stretch in _stretches(curve.points):
        parts.append(f'<polyline class="line" points="{" ".join(frame.at(x, y) for x, y in stretch)}"/>')
        if curve.dotted or len(stretch) == 1:
            parts += [f'<circle class="dot after" cx="{frame.x(x)}" cy="{frame.y(y)}" r="3.5"/>' for x, y in stretch]
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Frame:
    x_max: float
    y_min: float
    y_max: float

    def x(self, value: float) -> str:
        return f"{_LEFT + value / self.x_max * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y(self, value: float) -> str:
        share = (value - self.y_min) / (self.y_max - self.y_min)
        return f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x)},{self.y(y)}"


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], in_percent: bool) -> Iterable[str]:
    for tick in y_ticks:
        y = frame.y(tick)
        label = f"{_plain(100 * tick)} %" if in_percent else _plain(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>'
    for tick in x_ticks:
        x = frame.x(tick)
        yield f'<text class="tick" x="{x}" y="{_HEIGHT - 17}" text-anchor="middle">{_plain(tick)}</text>'
    yield f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 3}" text-anchor="end">epoch</text>'


def _whisker(frame: _Frame, x: float, low: float, high: float) -> str:
    at = frame.x(x)
    return f'<line class="whisker after" x1="{at}" x2="{at}" y1="{frame.y(low)}" y2="{frame.y(high)}"/>'


def _mark(frame: _Frame, epoch: float, label: str) -> Iterable[str]:
    x = frame.x(epoch)
    anchor = "end" if float(x) > _WIDTH / 2 else "start"
    shift = -5 if anchor == "end" else 5
    yield f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{_HEIGHT - _BOTTOM}"/>'
    yield f'<text class="tick" x="{float(x) + shift:.1f}" y="{_TOP - 4}" text-anchor="{anchor}">{escape(label)}</text>'


def _stretches(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            stretches[-1].append((x, y))
        else:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _open(kind: str, description: str, size: str) -> str:
    return f'<svg class="{kind}" role="img" aria-label="{escape(description)}" {size}>'


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _share(value: float | None, largest: float) -> str:
    return f"{100 * (value or 0.0) / largest:.2f}%"


def _plain(value: float) -> str:
    text = f"{value:.6g}"
    if "e" in text:
        mantissa, power = text.split("e")
        text = f"{mantissa}e{int(power)}"
    elif 0 < abs(value) < 1e-3:
        text = f"{value:.3e}"
        mantissa, power = text.split("e")
        text = f"{float(mantissa):g}e{int(power)}"
    return text.replace("-", "\u2212")
