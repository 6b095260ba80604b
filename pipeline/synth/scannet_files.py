"""Writes one synthetic room as ScanNet files, in ScanNet's unaligned scan frame.

world = axisAlignment @ scan. Mesh and poses are in the scan frame; the matrix in the `.txt` has six decimals,
and that rounded matrix is the one used, so that alignment is exact to float32.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import SynthConfig
from pipeline.sources.sens import IMU_DTYPE, SensFrame, SensHeader, write_sens
from pipeline.synth.camera import Camera, scaled_camera, walk
from pipeline.synth.render import Rendering
from pipeline.synth.scene import Scene
from pipeline.synth.sensor import exact_mm, measured_mm

F64 = NDArray[np.float64]
FRAME_US = 500_000
"""Between stored frames: the walk is a 30 Hz recording of which every 15th frame is kept."""
IMU_PER_FRAME = 4
LOST_SHARE = 0.03
"""Share of frames whose pose is -inf, as where ScanNet's tracking failed."""
JPEG_QUALITY = 92
GRAVITY_M_S2 = 9.80665


@dataclass(frozen=True)
class Track:
    """What the camera did."""

    scan_from_cam: F64  # (N, 4, 4)
    lost: NDArray[np.bool_]  # (N,) frames whose pose is stored as -inf
    start_us: int

    @property
    def times_us(self) -> NDArray[np.int64]:
        """(N,) time stamps of the colour images."""
        return self.start_us + FRAME_US * np.arange(len(self.lost), dtype=np.int64)


def write_scan_files(scene: Scene, folder: Path, config: SynthConfig) -> None:
    """Write the six files of a scan into `folder` (which exists); same scene and config, same bytes."""
    rng = np.random.default_rng([scene.seed, 23])
    world_from_scan = sample_alignment(rng)
    rendering = Rendering(scene)
    poses = np.linalg.inv(world_from_scan) @ walk(scene, config.frames, 0)
    track = Track(poses, sample_lost(config.frames, rng), int(rng.integers(10**9, 10**10)))
    color = scaled_camera("color", config.color_width, config.color_height)
    depth = scaled_camera("depth", config.depth_width, config.depth_height)
    header = SensHeader(_four(color), _four(depth), color.width, color.height, depth.width, depth.height)
    frames = _frames(rendering, track, (color, depth), world_from_scan, config.depth_noise)
    imu = imu_records(track)
    write_sens(folder / f"{scene.scan_id}.sens", header, frames, imu)
    write_meta(
        folder / f"{scene.scan_id}.txt", scene, (color, depth), world_from_scan, (config.frames, len(imu))
    )
    write_mesh(folder, rendering, world_from_scan)


def sample_alignment(rng: np.random.Generator) -> F64:
    """(4, 4) world_from_scan: a turn about z, at least 10 degrees off any right angle, and a shift."""
    angle = math.radians(90 * int(rng.integers(4)) + float(rng.uniform(10, 80)))
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.eye(4)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:3, 3] = -matrix[:3, :3] @ (*rng.uniform(1.5, 4.5, 2), float(rng.uniform(-0.15, 0.15)))
    return np.round(matrix, 6)


def sample_lost(num_frames: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(num_frames,) about 3 percent lost, at least one of ten frames or more, never the first."""
    count = max(round(LOST_SHARE * num_frames), 1) if num_frames >= 10 else 0
    lost = np.zeros(num_frames, bool)
    lost[1 + rng.choice(num_frames - 1, count, replace=False)] = True
    return lost


def _four(camera: Camera) -> NDArray[np.float32]:
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = camera.matrix
    return matrix


def _frames(
    rendering: Rendering, track: Track, cameras: tuple[Camera, Camera], world_from_scan: F64, noise: bool
) -> Iterator[SensFrame]:
    color_camera, depth_camera = cameras
    for number, scan_from_cam in enumerate(track.scan_from_cam.astype(np.float32)):
        # What is stored is float32; the picture is taken from exactly that pose.
        world_from_cam = world_from_scan @ scan_from_cam.astype(np.float64)
        rgb = rendering.color(color_camera, world_from_cam)
        view = rendering.depth(depth_camera, world_from_cam)
        rng = np.random.default_rng([rendering.scene.seed, 31, number])
        depth_mm = measured_mm(view.z_m, view.cosine, rng) if noise else exact_mm(view.z_m)
        done, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert done
        stored = np.full((4, 4), -np.inf, np.float32) if track.lost[number] else scan_from_cam
        time_us = int(track.times_us[number])
        payload = zlib.compress(depth_mm.astype("<u2").tobytes(), 1)
        yield SensFrame(jpeg.tobytes(), payload, stored, time_us, time_us + 7_000)


def imu_records(track: Track) -> NDArray[np.void]:
    """A gyroscope, an accelerometer, a compass and attitude along the track, from its finite differences."""
    records = np.zeros(len(track.lost) * IMU_PER_FRAME, IMU_DTYPE)
    seconds = FRAME_US * 1e-6
    cam_from_scan = np.swapaxes(track.scan_from_cam[:, :3, :3], 1, 2)
    positions = track.scan_from_cam[:, :3, 3]
    velocity = np.gradient(positions, seconds, axis=0) if len(positions) > 1 else np.zeros_like(positions)
    acceleration = np.gradient(velocity, seconds, axis=0) if len(positions) > 1 else velocity
    for number, rotation in enumerate(cam_from_scan):
        following = cam_from_scan[min(number + 1, len(cam_from_scan) - 1)]
        spin, _ = cv2.Rodrigues(rotation @ following.T)
        down = rotation @ (0.0, 0.0, -1.0)
        forward = rotation[2]
        attitude = (
            math.atan2(forward[1], forward[0]),
            math.asin(float(np.clip(forward[2], -1, 1))),
            math.atan2(down[0], down[1]),
        )
        rows = records[number * IMU_PER_FRAME : (number + 1) * IMU_PER_FRAME]
        rows["rotation_rate"] = spin.ravel() / seconds
        rows["acceleration"] = rotation @ acceleration[number] / GRAVITY_M_S2
        rows["magnetic_field"] = rotation @ (0.0, 22.0, -42.0)
        rows["attitude"] = attitude
        rows["gravity"] = down
        rows["timestamp_us"] = track.times_us[number] + np.arange(IMU_PER_FRAME) * (FRAME_US // IMU_PER_FRAME)
    return records


def write_meta(
    path: Path, scene: Scene, cameras: tuple[Camera, Camera], world_from_scan: F64, counts: tuple[int, int]
) -> None:
    """The `.txt`: `key = value` lines; `counts` of frames and of IMU records."""
    color, depth = cameras

    def row(matrix: F64) -> str:
        return " ".join(f"{value:.6f}" for value in matrix.ravel())

    values = {
        "colorWidth": color.width,
        "colorHeight": color.height,
        "depthWidth": depth.width,
        "depthHeight": depth.height,
        "fx_color": f"{color.fx:.6f}",
        "fy_color": f"{color.fy:.6f}",
        "mx_color": f"{color.cx:.6f}",
        "my_color": f"{color.cy:.6f}",
        "fx_depth": f"{depth.fx:.6f}",
        "fy_depth": f"{depth.fy:.6f}",
        "mx_depth": f"{depth.cx:.6f}",
        "my_depth": f"{depth.cy:.6f}",
        "colorToDepthExtrinsics": row(np.eye(4)),
        "axisAlignment": row(world_from_scan),
        "deviceId": "scanshards-synth",
        "deviceName": "synthetic room",
        "sceneLabel": scene.room_type.split(" /")[0],
        "sceneType": scene.room_type,
        "numDepthFrames": counts[0],
        "numColorFrames": counts[0],
        "numIMUmeasurements": counts[1],
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))


def write_mesh(folder: Path, rendering: Rendering, world_from_scan: F64) -> None:
    """`_vh_clean_2.ply`, its over-segments and the instances as groups of segments."""
    scan_id, mesh = rendering.scene.scan_id, rendering.mesh
    scan_from_world = np.linalg.inv(world_from_scan)
    points = mesh.vertices.astype(np.float64) @ scan_from_world[:3, :3].T + scan_from_world[:3, 3]
    write_ply(folder / f"{scan_id}_vh_clean_2.ply", points, rendering.vertex_colors(), mesh.faces)
    params = {"kThresh": "0.0001", "segMinVerts": "20", "minPoints": "750", "maxPoints": "30000"}
    segs = {"params": params, "sceneId": scan_id, "segIndices": mesh.segments.tolist()}
    segments_file = f"{scan_id}_vh_clean_2.0.010000.segs.json"
    (folder / segments_file).write_text(json.dumps(segs, separators=(",", ":")))
    pairs = np.unique(np.column_stack([mesh.vertex_instance, mesh.segments]), axis=0)
    groups = [
        {
            "id": obj.instance_id,
            "objectId": obj.instance_id,
            "segments": pairs[pairs[:, 0] == obj.instance_id, 1].tolist(),
            "label": obj.label,
        }
        for obj in rendering.scene.objects
    ]
    aggregation = {
        "sceneId": f"scannet.{scan_id}",
        "appId": "scanshards.synth",
        "segGroups": groups,
        "segmentsFile": f"scannet.{segments_file}",
    }
    (folder / f"{scan_id}.aggregation.json").write_text(json.dumps(aggregation, separators=(",", ":")))


def write_ply(path: Path, points: F64, colors: NDArray[np.uint8], faces: NDArray[np.int32]) -> None:
    """Binary little-endian; vertices x y z red green blue alpha, faces as lists of three."""
    vertices = np.zeros(len(points), [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    vertices["xyz"], vertices["rgba"][:, :3], vertices["rgba"][:, 3] = points, colors, 255
    triangles = np.zeros(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    triangles["count"], triangles["corners"] = 3, faces
    floats = "".join(f"property float {axis}\n" for axis in "xyz")
    bytes_ = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue", "alpha"))
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{floats}{bytes_}"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + vertices.tobytes() + triangles.tobytes())
