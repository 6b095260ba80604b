"""The report's part that shows every scan's BEV, small, and names the reason where there is none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

import cv2
import numpy as np

from pipeline import report_pictures as pictures
from pipeline.report_facts import ScanFacts, spread
from pipeline.store import Store

MAX_SHOWN = 2000
"""Of more scans so many are shown, evenly spread: the page stays below 10 MB."""
SIZES_PX = ((60, 150), (400, 104), (MAX_SHOWN, 72))
"""(up to so many pictures, width of each)."""
QUALITY = 70


def bev_gallery(facts: Sequence[ScanFacts], store: Store, shown: Collection[str]) -> str:
    """One small picture per scan; `shown` are ids of sections to link to. "" where no scan got to its BEV."""
    seen = [one for one in facts if one.has_bev or one.no_bev]
    if not seen:
        return ""
    with_bev, without = [one for one in seen if one.has_bev], [one for one in seen if not one.has_bev]
    pictured = spread(with_bev, MAX_SHOWN)
    size = next(px for most, px in SIZES_PX if len(pictured) <= most)
    cards = "".join(_card(one, store, size, shown) for one in pictured)
    left_out = (
        f"; {len(pictured):,} of them, evenly spread, are shown" if len(pictured) < len(with_bev) else ""
    )
    reasons = "".join(
        f"<tr><td>{escape(one.scan_id)}</td><td>{escape(one.no_bev)}</td></tr>" for one in without
    )
    absent = (
        f"<details{' open' if len(without) <= 10 else ''}><summary>{len(without):,} scans without a BEV"
        "</summary><div class='scroll'><table><thead><tr><th>scan</th><th>why</th></tr></thead>"
        f"{reasons}</table></div></details>"
        if without
        else ""
    )
    return (
        f'<section id="bevs"><h2>From above</h2><p class="facts">{len(with_bev):,} of {len(seen):,} scans '
        f"have a BEV{left_out}. Below each: the share of its pixels that is covered, and the side of its "
        f'square</p><div class="bevs" style="--size:{size}px">{cards}</div>{absent}</section>'
    )


def _card(one: ScanFacts, store: Store, size: int, shown: Collection[str]) -> str:
    group = store.read(one.scan_id)
    assert group is not None and one.bev is not None, f"{one.scan_id}: a BEV without a group"
    image = cv2.resize(np.asarray(group["bev"][:]), (size, size), interpolation=cv2.INTER_AREA)
    side_m = one.bev["metres_per_pixel"] * group["bev"].shape[0]
    name = escape(one.scan_id)
    card = (
        f'<img src="{pictures.data_uri(image, QUALITY, "webp")}" alt="BEV of {name}" title="{name}" '
        f'width="{size}" height="{size}"><span>{one.bev["valid_fraction"]:.0%} · {side_m:.0f} m</span>'
    )
    key = f"{one.scan_id}-00"
    return f'<a href="#{escape(key)}">{card}</a>' if key in shown else f"<div>{card}</div>"
