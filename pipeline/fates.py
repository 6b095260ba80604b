"""What becomes of a frame: its statuses, the reasons of rejection, and how a scan's frames are noted.

A frame is `used` (in a clip), `not_examined` (no clip needed it), or `rejected` with a reason; every
frame of a scan is exactly one of these. A frame that no clip needed but that was decoded all the same, by
the full audit or for its coverage, and found good, is `not_examined` with the reason `spare`. Most frames
of a scan share their fate, so the clips stage stores them grouped: `[{"status": …, "reason": …, "frames":
[indices]}]`. A reason reads `kind: detail` or `kind`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

FrameStatus = Literal["used", "not_examined", "rejected"]

SPARE = "spare"
POSE = "pose not finite"
TRUNCATED = "truncated"
DECODE = "decode failed"
DEPTH = "depth mostly missing"
JUMP = "pose jump"
BLUR = "blurred"


def frame_groups(
    num_frames: int, used: Iterable[int], rejected: Mapping[int, str], examined: Iterable[int] = ()
) -> list[dict[str, Any]]:
    """Group the fates of frames 0 … num_frames-1.

    A frame of `examined` that is neither used nor rejected is spare.
    """
    used = sorted(set(used))
    spare = sorted(set(examined).difference(used, rejected))
    seen = {*used, *spare, *rejected}
    groups: dict[tuple[FrameStatus, str], list[int]] = {
        ("used", ""): used,
        ("not_examined", SPARE): spare,
        ("not_examined", ""): [frame for frame in range(num_frames) if frame not in seen],
    }
    for frame in sorted(rejected):
        groups.setdefault(("rejected", rejected[frame]), []).append(frame)
    accounted = sum(len(frames) for frames in groups.values())
    assert accounted == num_frames, f"{accounted} frames accounted for, the scan has {num_frames}"
    return [{"status": s, "reason": r, "frames": frames} for (s, r), frames in groups.items() if frames]


def reason_kind(reason: str) -> str:
    """`decode failed: a.sens: frame 3 …` -> `decode failed`."""
    return reason.partition(":")[0]


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each kind of reason occurs, most frequent first."""
    return dict(Counter(map(reason_kind, reasons)).most_common())
