"""The report's list of what to look at before training on the shards: computed, not judged by eye."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from pipeline.report_facts import Sampled, ScanFacts
from pipeline.report_quality import FATES
from pipeline.sources.gravity import MAX_LEAN_DEG
from scanshards.schema import NUM_FRAMES

MIN_VALID_DEPTH = 0.5
"""A scan whose used frames have less measured depth (their median) is named."""
MIN_PLAN_SEEN = 0.5
"""A clip that sees less of its plan is named."""
MAX_BAD_FRAMES = 0.2
"""A scan with a larger share of rejected frames is named."""
MAX_NAMED = 6

MARKS = {"good": "✓", "look": "!", "bad": "✗"}


@dataclass(frozen=True)
class Check:
    state: Literal["good", "look", "bad"]
    title: str
    text: str
    scan_ids: tuple[str, ...] = ()
    """The scans that it is about."""


def checks_section(facts: Sequence[ScanFacts], sampled: Sampled) -> str:
    """One line per check; "" without scans."""
    if not facts:
        return ""
    return (
        '<section id="checks"><h2>Before you train</h2><ul class="checks">'
        f"{''.join(map(_line, all_checks(facts, sampled)))}</ul></section>"
    )


def all_checks(facts: Sequence[ScanFacts], sampled: Sampled) -> list[Check]:
    used = [one for one in facts if one.row["status"] == "used"]
    return [
        _scans(facts),
        _accounted(facts),
        _bad_frames(facts),
        _repeats(used),
        _depth(used),
        _coverage(used, sampled),
        _upright(used),
        _bev(used),
        _texts(used),
        _missing(used),
    ]


def _scans(facts: Sequence[ScanFacts]) -> Check:
    by_status: dict[str, tuple[str, ...]] = {
        status: _ids(facts, lambda one, status=status: one.row["status"] == status)
        for status in ("used", "rejected", "waiting")
    }
    text = f"{len(by_status['used']):,} of {len(facts):,} are in the shards"
    if by_status["waiting"]:
        text += f"; {len(by_status['waiting']):,} have not been through all stages"
        return Check("bad", "Scans", text, by_status["waiting"])
    if by_status["rejected"]:
        text += f"; {len(by_status['rejected']):,} are rejected"
        return Check("look", "Scans", text, by_status["rejected"])
    return Check("good", "Scans", text)


def _accounted(facts: Sequence[ScanFacts]) -> Check:
    wrong = _ids(facts, lambda one: one.row["num_frames"] != sum(one.row[fate] for fate in FATES))
    total = sum(one.row["num_frames"] for one in facts)
    text = f"all of {total:,} have exactly one fate: {', '.join(FATES.values())}"
    if wrong:
        return Check("bad", "Frames accounted for", f"{len(wrong):,} scans have frames without a fate", wrong)
    return Check("good", "Frames accounted for", text)


def _bad_frames(facts: Sequence[ScanFacts]) -> Check:
    many = _ids(facts, lambda one: one.row["rejected"] > MAX_BAD_FRAMES * max(one.row["num_frames"], 1))
    rejected, total = (sum(one.row[name] for one in facts) for name in ("rejected", "num_frames"))
    text = f"{rejected:,} of {total:,} ({rejected / max(total, 1):.1%}) are rejected"
    if many:
        text += f"; {len(many):,} scans lose more than {MAX_BAD_FRAMES:.0%} of theirs"
        return Check("look", "Bad frames", text, many)
    return Check("good", "Bad frames", text)


def _repeats(used: Sequence[ScanFacts]) -> Check:
    few = _ids(used, lambda one: min(one.distinct_frames, default=NUM_FRAMES) < NUM_FRAMES)
    if few:
        text = f"{len(few):,} scans have fewer than {NUM_FRAMES} good frames for a clip; some are repeated"
        return Check("look", "Repeated frames", text, few)
    return Check("good", "Repeated frames", f"every clip has {NUM_FRAMES} different frames")


def _depth(used: Sequence[ScanFacts]) -> Check:
    medians = {
        one.scan_id: float(np.median([one.valid_depth[frame] for frame in sorted(one.used)]))
        for one in used
        if one.used
    }
    if not medians:
        return Check("bad", "Measured depth", "no scan has frames")
    low = tuple(scan_id for scan_id, median in medians.items() if median < MIN_VALID_DEPTH)
    text = f"half of the scans have {np.median(list(medians.values())):.0%} or more of their pixels"
    if low:
        return Check("look", "Measured depth", f"{text}; {len(low):,} below {MIN_VALID_DEPTH:.0%}", low)
    return Check("good", "Measured depth", text)


def _coverage(used: Sequence[ScanFacts], sampled: Sampled) -> Check:
    seen = sampled.plan_seen
    if not seen:
        return Check("look", "Coverage", "no sampled scan has a BEV to measure it against")
    low = tuple(scan_id for scan_id, share in seen.items() if share < MIN_PLAN_SEEN)
    median = np.median(list(seen.values()))
    text = f"a clip sees {median:.0%} of its plan (median of {len(seen):,} sampled clips)"
    surface = [share for one in used for share in one.surface_seen]
    if surface:
        text += (
            f" and {np.median(surface):.0%} of the surface of its mesh, or without one of what all examined "
            f"frames see (median of {len(surface):,} clips)"
        )
    if low:
        text += f"; {len(low):,} see less than {MIN_PLAN_SEEN:.0%}: consider clips.sampling=max_coverage"
        return Check("look", "Coverage", text, low)
    return Check("good", "Coverage", text)


def _upright(used: Sequence[ScanFacts]) -> Check:
    lying = _ids(used, lambda one: one.lean_deg is not None and one.lean_deg > MAX_LEAN_DEG)
    if lying:
        text = (
            f"{len(lying):,} scans were recorded with cameras that lean more than {MAX_LEAN_DEG:.0f}°: look "
            "at their BEV; if z is not up, give them a SCAN.txt with axisAlignment"
        )
        return Check("look", "Upright", text, lying)
    return Check("good", "Upright", "all cameras agree that z is up")


def _bev(used: Sequence[ScanFacts]) -> Check:
    without = _ids(used, lambda one: not one.has_bev)
    text = f"{len(used) - len(without):,} of {len(used):,} scans have one"
    if without:
        return Check("look", "BEV", f"{text}; the global-view loss skips the others", without)
    return Check("good", "BEV", text)


def _texts(used: Sequence[ScanFacts]) -> Check:
    without = _ids(used, lambda one: not one.row["num_texts"])
    count = sum(one.row["num_texts"] for one in used)
    text = f"{count:,} about {len(used) - len(without):,} of {len(used):,} scans"
    if without:
        return Check("look", "Texts", f"{text}; the others serve only the reconstruction losses", without)
    return Check("good", "Texts", text)


def _missing(used: Sequence[ScanFacts]) -> Check:
    lost: Counter[str] = Counter()
    for one in used:
        lost.update(one.row["missing"])
    if lost:
        text = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in lost.most_common())
        concerned = _ids(used, lambda one: any(one.row["missing"].values()))
        return Check("look", "Annotations", f"not there, though referred to, or left out: {text}", concerned)
    return Check("good", "Annotations", "all that the texts refer to is there")


def _ids(facts: Sequence[ScanFacts], keep) -> tuple[str, ...]:
    return tuple(one.scan_id for one in facts if keep(one))


def _line(check: Check) -> str:
    more = len(check.scan_ids) - MAX_NAMED
    named = ", ".join(check.scan_ids[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    where = f" <small>{escape(named)}</small>" if named else ""
    return (
        f'<li class="{check.state}"><i>{MARKS[check.state]}</i><div><b>{escape(check.title)}</b> '
        f"{escape(check.text)}{where}</div></li>"
    )
