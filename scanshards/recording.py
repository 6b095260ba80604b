"""Clips as a Rerun recording, to look at in three dimensions: `preview --rerun` (extra `rerun`).

Per clip, below its key:

- `world`: z up, metres; `world/points` with the colours of the stored frames, one lot per frame of the clip;
- `world/camera`: where the camera is, and `world/camera/image`: its pinhole and the stored JPEG;
- `world/path`: all camera centres; `world/boxes/annotated` and `world/boxes/proposed`: objects with labels;
- `bev`: the bird's-eye view, where there is one.

Timelines: `clip_frame` 0 to 31, and `source_frame`, its number in the scan. Only a file is written: no viewer
is started and nothing listens. Rerun is imported when it is used.
"""

from __future__ import annotations

import colorsys
import itertools
import os
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanshards import codec
from scanshards.clip import Clip
from scanshards.files import Urls
from scanshards.geometry import ResizePlan
from scanshards.read import open as open_clips
from scanshards.schema import FRAME_SIZE

APPLICATION = "scanshards"
POINT_STRIDE = 4
"""Every fourth row and column: 9,216 points a frame, 5 MB a clip."""
POINT_RADIUS_M = 0.008
IMAGE_PLANE_M = 0.35


def write_recording(urls: Urls, out: Path, limit: int = 12) -> int:
    """Write the first `limit` clips to `out`; returns how many. ImportError: Rerun is not installed."""
    if limit < 1:
        raise ValueError(f"limit {limit}: expected at least 1 clip to show")
    rr = _rerun()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        recording = rr.RecordingStream(APPLICATION)
        if not rr.is_enabled(recording):
            raise ValueError(
                f"Rerun is switched off by RERUN={os.environ.get('RERUN')}, expected on; unset it"
            )
        recording.save(temporary)
        keys = []
        for clip in itertools.islice(open_clips(urls), limit):
            _log_clip(rr, recording, clip)
            keys.append(clip.key)
        recording.send_blueprint(_blueprint(keys))
        recording.disconnect()
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return len(keys)


def stored_pinhole(intrinsics: NDArray[np.float64], plan: ResizePlan) -> NDArray[np.float64]:
    """(3, 3) of the stored picture, from that of the recorded one.

    Rerun measures from the corner of a pixel, we from its middle: hence half a pixel more in the result.
    """
    scale = np.array([plan.width / plan.source_width, plan.height / plan.source_height])
    center = (intrinsics[:2, 2] + 0.5) * scale - [plan.x, plan.y]
    focal = intrinsics[[0, 1], [0, 1]] * scale
    return np.array([[focal[0], 0, center[0]], [0, focal[1], center[1]], [0, 0, 1]])


def _rerun() -> ModuleType:
    try:
        import rerun
    except ImportError as error:
        raise ImportError(
            f"preview --rerun needs the package rerun-sdk ({error}); run `pip install 'scanshards[rerun]'`"
        ) from error
    return rerun


def _log_clip(rr: ModuleType, recording: Any, clip: Clip) -> None:
    def log(path: str, value: Any, static: bool = False) -> None:
        recording.log(f"{clip.key}/{path}", value, static=static, strict=True)

    log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    centers = clip.world_from_cam[:, :3, 3]
    log("world/path", rr.LineStrips3D([centers], colors=[255, 160, 60]), static=True)
    pinhole = rr.Pinhole(
        image_from_camera=stored_pinhole(clip.intrinsics, clip.resize_plan),
        resolution=[FRAME_SIZE, FRAME_SIZE],
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=IMAGE_PLANE_M,
    )
    log("world/camera/image", pinhole, static=True)
    for source, name in (("gt", "annotated"), ("pred", "proposed")):
        if source in clip.objects["sources"]:
            log(f"world/boxes/{name}", _boxes(rr, clip, source), static=True)
    if clip.meta["bev"]["present"]:
        picture = rr.EncodedImage(contents=codec.encode_png(clip.bev), media_type="image/png")
        log("bev", picture, static=True)
    jpegs = clip.frame_jpegs()
    for k, (pose, jpeg) in enumerate(zip(clip.world_from_cam, jpegs, strict=True)):
        recording.set_time("clip_frame", sequence=k)
        recording.set_time("source_frame", sequence=int(clip.frame_indices[k]))
        points, colors = _points(clip, k)
        log("world/points", rr.Points3D(points, colors=colors, radii=POINT_RADIUS_M))
        log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        log("world/camera/image", rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
    recording.reset_time()


def _points(clip: Clip, k: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """World points (n, 3) and colours (n, 3) of every fourth pixel of frame k that has depth."""
    every = slice(POINT_STRIDE // 2, None, POINT_STRIDE)
    valid = clip.coords_valid[k, every, every]
    return clip.coords[k, every, every][valid], clip.frame(k)[every, every][valid]


def _boxes(rr: ModuleType, clip: Clip, source: str) -> Any:
    """The objects of one source; a label says class and id, a proposal has no class."""
    objects = clip.objects
    rows = [row for row, own in enumerate(objects["sources"]) if own == source]
    boxes = np.array([objects["boxes"][row] for row in rows])
    labels = [f"{objects['labels'][row] or 'proposal'} {objects['instance_ids'][row]}" for row in rows]
    colors = [_color(objects["labels"][row]) for row in rows]
    return rr.Boxes3D(centers=boxes[:, :3], sizes=boxes[:, 3:], labels=labels, colors=colors)


def _color(label: str) -> list[int]:
    """The colour of a class: the same in every clip; proposals are grey."""
    if not label:
        return [170, 170, 170]
    return [round(255 * v) for v in colorsys.hsv_to_rgb(zlib.crc32(label.encode()) % 360 / 360, 0.7, 1.0)]


def _blueprint(keys: list[str]) -> Any:
    """A tab per clip: the room, which fills as time goes on, beside the frame and the bird's-eye view."""
    import rerun.blueprint as rrb

    until_now = rrb.VisibleTimeRange(
        "clip_frame",
        start=rrb.TimeRangeBoundary.infinite(),
        end=rrb.TimeRangeBoundary.cursor_relative(),
    )
    tabs = [
        rrb.Horizontal(
            rrb.Spatial3DView(origin=f"{key}/world", name="room", time_ranges=[until_now]),
            rrb.Vertical(
                rrb.Spatial2DView(origin=f"{key}/world/camera/image", name="frame"),
                rrb.Spatial2DView(origin=f"{key}/bev", name="from above"),
            ),
            column_shares=[2, 1],
            name=key,
        )
        for key in keys
    ]
    return rrb.Blueprint(rrb.Tabs(*tabs), rrb.TimePanel(timeline="clip_frame", fps=4.0))
