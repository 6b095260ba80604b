"""Charts as inline SVG: curves (raw values thin, a running mean bold), histograms, and bars of shares."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
MAX_POINTS = 500
NUM_PART_COLORS = 8
"""Colours in report.css for the parts of a bar."""


@dataclass(frozen=True)
class Curve:
    """How one quantity is drawn over optimiser steps."""

    title: str
    note: str
    field: str
    """Its name in a row of the log."""
    log: bool = False
    smooth: bool = True
    """False: the values are no measurement and are drawn as they are."""


def chart(curve: Curve, steps: Sequence[float], values: Sequence[float]) -> str:
    """A figure with the curve's chart; values that are not finite (log: not positive) are left out."""
    points = [
        (step, value)
        for step, value in zip(steps, values, strict=True)
        if math.isfinite(value) and (value > 0 or not curve.log)
    ]
    caption = f"<figcaption><b>{html.escape(curve.title)}</b> {html.escape(curve.note)}</figcaption>"
    if len(points) < 2:
        return f'<figure class="chart">{caption}<p class="quiet">fewer than two values</p></figure>'
    steps, values = zip(*points, strict=True)
    smooth = running_mean(values) if curve.smooth else values
    y_of, ticks = _value_axis(values, curve.log)
    x_of = _step_axis(steps)
    last = _short(smooth[-1])
    body = _grid(ticks, y_of) + _step_labels(steps, x_of)
    if curve.smooth:
        body += f'<path class="raw" d="{_path(steps, values, x_of, y_of)}"/>'
    body += f'<path class="smooth" d="{_path(steps, smooth, x_of, y_of)}"/>'
    body += f'<circle class="end" cx="{x_of(steps[-1]):.1f}" cy="{y_of(smooth[-1]):.1f}" r="3.5"/>'
    label = html.escape(
        f"{curve.title}: {_short(values[0])} at step {steps[0]:g}, {last} at step {steps[-1]:g}"
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
    change = f'<span class="change">{_short(smooth[0])} → {last}</span>'
    return f'<figure class="chart">{caption}{change}{svg}</figure>'


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a tenth of the curve (shorter at the ends), so that nothing lags."""
    half = max(1, len(values) // 20)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    windows = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in windows]


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from `low` to `high` (1, 2 or 5 times a power of ten apart)."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _value_axis(values: Sequence[float], log: bool):
    """A function from value to y, and the ticks."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    margin = 0.05 * (high - low)
    low, high = (low - margin if log or low < 0 else max(0.0, low - margin)), high + margin
    height = HEIGHT - TOP - BOTTOM

    def y_of(value: float) -> float:
        position = math.log10(value) if log else value
        return TOP + height * (high - position) / (high - low)

    return y_of, (_log_ticks(low, high) if log else nice_ticks(low, high))


def _log_ticks(low: float, high: float) -> list[float]:
    """Ticks between 10**low and 10**high: 1-2-5 within each decade, or fewer when there are many decades."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return inside if len(inside) >= 2 else nice_ticks(10.0**low, 10.0**high)


def _step_axis(steps: Sequence[float]):
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    return lambda step: LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)


def _grid(ticks: Sequence[float], y_of) -> str:
    lines = (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>'
        f'<text x="{LEFT - 7}" y="{y_of(tick) + 3.5:.1f}" text-anchor="end">{_short(tick)}</text>'
        for tick in ticks
    )
    return f'<g class="grid">{"".join(lines)}</g>'


def _step_labels(steps: Sequence[float], x_of) -> str:
    return _labels(nice_ticks(steps[0], max(steps[-1], steps[0] + 1), 5), x_of)


def _labels(ticks: Sequence[float], x_of) -> str:
    """Numbers below the horizontal axis."""
    labels = (
        f'<text x="{x_of(tick):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{tick:g}</text>' for tick in ticks
    )
    return f'<g class="grid">{"".join(labels)}</g>'


def _path(steps: Sequence[float], values: Sequence[float], x_of, y_of) -> str:
    stride = max(1, math.ceil(len(steps) / MAX_POINTS))
    kept = [*range(0, len(steps) - 1, stride), len(steps) - 1]
    return "M" + "L".join(f"{x_of(steps[i]):.1f} {y_of(values[i]):.1f}" for i in kept)


def _short(value: float) -> str:
    """Three significant digits, or whole thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def histogram(title: str, note: str, edges: Sequence[float], counts: Sequence[float]) -> str:
    """A figure with one bar per bin, as high as its share of all, in per cent; `edges` has one more."""
    caption = f"<figcaption><b>{html.escape(title)}</b> {html.escape(note)}</figcaption>"
    total = sum(counts)
    if not total:
        return f'<figure class="chart">{caption}<p class="quiet">nothing to show</p></figure>'
    percent = [100 * count / total for count in counts]
    y_of, ticks = _value_axis([0.0, *percent], log=False)
    scale = (WIDTH - LEFT - RIGHT) / (edges[-1] - edges[0])
    bars = "".join(
        f'<rect x="{LEFT + scale * (low - edges[0]):.1f}" y="{y_of(value):.1f}" '
        f'width="{max(scale * (high - low) - 1, 0.5):.1f}" height="{y_of(0.0) - y_of(value):.1f}">'
        f"<title>{low:g} to {high:g}: {value:.1f} %</title></rect>"
        for low, high, value in zip(edges[:-1], edges[1:], percent, strict=True)
        if value
    )
    labels = _labels(nice_ticks(edges[0], edges[-1], 5), lambda tick: LEFT + scale * (tick - edges[0]))
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(f"{title}: histogram")}">'
        f"{_grid(ticks, y_of)}{labels}<g>{bars}</g></svg>"
    )
    return f'<figure class="chart bins">{caption}{svg}</figure>'


def shares(amounts: Mapping[str, float]) -> str:
    """One bar that is parted in proportion, with a legend; parts keep their order."""
    total = sum(amounts.values())
    if not total:
        return ""
    parts = [(name, 100 * amount / total) for name, amount in amounts.items() if amount]
    bar = "".join(
        f'<i class="part{index % NUM_PART_COLORS}" style="width:{percent:.2f}%" '
        f'title="{html.escape(name)} {percent:.1f} %"></i>'
        for index, (name, percent) in enumerate(parts)
    )
    legend = ", ".join(
        f'<span class="part{index % NUM_PART_COLORS}"></span>{html.escape(name)} {_percent(percent)}'
        for index, (name, percent) in enumerate(parts)
    )
    return f'<div class="shares">{bar}</div><p class="legend">{legend}</p>'


def _percent(value: float) -> str:
    """Whole per cent, but what is there is never shown as nothing."""
    return f"{value:.0f} %" if value >= 0.5 else "< 1 %"
