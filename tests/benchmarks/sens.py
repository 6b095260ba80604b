"""One clip out of a long `.sens` file on one core: stage `clips` against the plain way.

    python -m tests.benchmarks.sens [--frames 2000] [--sens FILE.sens] [--folder FOLDER] [--repeats 3]

The recording is generated in FOLDER (default: the system's temporary folder; 1.2 GB, removed at the end), at
ScanNet's sizes, from the pictures of FILE or a made-up texture, with sensor noise. The plain way reads the
whole file into memory, parses all frames, decodes every 10th and writes it as JPEG, PNG and text. It runs
with OpenCV, with the library of the published exporter (imageio, which is Pillow), and with that and the
exporter's way to unpack a payload, one byte object after the other.

Each arm is a fresh process on one core; imports are not timed. `warm`: the file is in the page cache before
each run; `cold`: it was dropped from it (what lies below the file system may still have it).
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sources.sens_format import (
    BODY,
    FRAME_DTYPE,
    HEAD,
    SIZES,
    SIZES_OFFSET,
    SensFrame,
    SensHeader,
    write_sens,
)
from tests.benchmarks.one_core import finish_arm, limit_libraries, machine, peak_mb, run_arm, table

MODULE = "tests.benchmarks.sens"
SCAN = "scene0000_00"
COLOR, DEPTH = (1296, 968), (640, 480)
INTRINSICS = np.array([[577.6, 0, 319.5, 0], [0, 577.6, 239.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
NUM_PICTURES = 100
"""Different pictures; longer recordings repeat them."""
COLOR_NOISE, DEPTH_NOISE_MM = 3.0, 3
JPEG_QUALITY = 95
"""With the noise, about 600 kB a frame, as in ScanNet (1.3 TB, 2.5 million frames)."""
EVERY = 10
ARMS = {
    "clips": "stage clips, 32 frames",
    "plain-opencv": "plain, OpenCV, every 10th",
    "plain-imageio": "plain, imageio, every 10th",
    "published": "the same, unpacking bytewise",
}
FAST_ARMS = [name for name in ARMS if name != "published"]
"""The other one runs once per state: its figure leaves no doubt."""


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--sens", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        arm(arguments.arm, arguments.sens)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / SCAN / f"{SCAN}.sens"
        path.parent.mkdir()
        write_sens(path, header(), frames(arguments.sens, arguments.frames))
        os.sync()
        size = f"{arguments.frames} frames, {path.stat().st_size / 1e9:.2f} GB"
        sys.stdout.write(f"{size}; {machine()}\n\n")
        for state, prepare in (("warm", read_through), ("cold", drop_cached)):
            runs: dict[str, list[dict]] = {name: [] for name in ARMS}
            for repeat in range(arguments.repeats):
                for name in ARMS if repeat == 0 else FAST_ARMS:
                    prepare(path)
                    runs[name].append(run_arm(MODULE, "--arm", name, "--sens", str(path)))
            sys.stdout.write(f"{report(state, runs)}\n")


def report(state: str, runs: dict[str, list[dict]]) -> str:
    seconds = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    rows = [
        (
            ARMS[name],
            f"{seconds[name]:.2f}",
            f"{seconds[name] / seconds['clips']:.1f}",
            f"{max(run['peak_mb'] for run in found):.0f}",
            f"{max(run['base_mb'] for run in found):.0f}",
        )
        for name, found in runs.items()
    ]
    return table((state, "seconds", "times clips", "peak MB", "MB after imports"), rows)


def header() -> SensHeader:
    color = INTRINSICS.copy()
    color[:2, :3] *= COLOR[0] / DEPTH[0]
    return SensHeader(
        color_intrinsics=color,
        depth_intrinsics=INTRINSICS,
        color_width=COLOR[0],
        color_height=COLOR[1],
        depth_width=DEPTH[0],
        depth_height=DEPTH[1],
    )


def frames(sens: Path | None, count: int) -> Iterator[SensFrame]:
    """The pictures in turn; the camera goes along x."""
    payloads = []
    for number, (rgb, depth) in enumerate(pictures(sens)):
        rng = np.random.default_rng(number)
        noisy = np.clip(rgb + rng.normal(0, COLOR_NOISE, rgb.shape), 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        wobble = rng.integers(-DEPTH_NOISE_MM, DEPTH_NOISE_MM + 1, depth.shape)
        payloads.append((jpeg, zlib.compress(np.where(depth > 0, depth + wobble, 0).astype("<u2").tobytes())))
    for index in range(count):
        pose = np.eye(4, dtype=np.float32)
        pose[0, 3] = 0.01 * index
        yield SensFrame(*payloads[index % len(payloads)], pose, 33333 * index, 33333 * index)


def pictures(sens: Path | None) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint16]]]:
    """RGB (968, 1296, 3) and depth (480, 640) mm, at most `NUM_PICTURES`."""
    if sens is None:
        y, x = np.mgrid[0 : COLOR[1], 0 : COLOR[0]]
        for k in range(NUM_PICTURES):
            waves = [np.sin((x * (c + 1) + y * (3 - c)) / (5 + k % 7)) for c in range(3)]
            rgb = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
            yield rgb, (2000 + x[:480, :640] + 2 * y[:480, :640]).astype(np.uint16)
        return
    from pipeline.sources.sens import SensReader

    with SensReader(sens) as reader:
        for index in range(0, reader.num_frames, max(1, reader.num_frames // NUM_PICTURES)):
            color, depth = (_four_by_three(picture(index)) for picture in (reader.color, reader.depth))
            yield (
                cv2.resize(color, COLOR, interpolation=cv2.INTER_CUBIC),
                cv2.resize(depth, DEPTH, interpolation=cv2.INTER_NEAREST),
            )


def _four_by_three(picture: NDArray) -> NDArray:
    """The middle of a picture that is wider than 4:3."""
    height, width = picture.shape[:2]
    spare = max(0, width - height * 4 // 3)
    return picture[:, spare // 2 : width - (spare - spare // 2)]


def read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def drop_cached(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def arm(name: str, sens: Path) -> None:
    run = clips_arm if name == "clips" else plain_arm
    with tempfile.TemporaryDirectory(dir=sens.parent.parent) as out:
        finish_arm(run(sens, Path(out), name))


def clips_arm(sens: Path, out: Path, _: str) -> dict[str, float]:
    """The stage as it is: choose, decode, resize, encode, hash, and put the group in place (with fsync)."""
    from pipeline import stages
    from pipeline.clips import build  # noqa: F401  imports are not timed
    from pipeline.config import load_config
    from pipeline.scans import take_inventory

    config = load_config([f"scans.root={sens.parent.parent}", f"work={out}", "texts.root="], None)
    entry = next(entry for entry in take_inventory(config).scans if entry.scan_id == SCAN)
    store = stages.stores(config)["clips"]
    store.create()
    return _timed(lambda: stages.build_scan("clips", entry, config, "benchmark"))


def plain_arm(sens: Path, out: Path, name: str) -> dict[str, float]:
    writer = opencv_writer if name == "plain-opencv" else imageio_writer()
    return _timed(lambda: export(sens, out, writer, bytewise=name == "published"))


def _timed(work: Callable[[], object]) -> dict[str, float]:
    limit_libraries()
    base_mb, start = peak_mb(), time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb(), "base_mb": base_mb}


def export(sens: Path, out: Path, write: Callable[[Path, bytes, bytes], None], bytewise: bool) -> None:
    """The plain way; `bytewise` takes each payload apart into single bytes and joins them again."""
    data = sens.read_bytes()
    _, name_bytes = HEAD.unpack_from(data)
    at = HEAD.size + name_bytes
    *_, num_frames = BODY.unpack_from(data, at)
    at += BODY.size
    parsed = []
    for _ in range(num_frames):
        sizes = SIZES.unpack_from(data, at + SIZES_OFFSET)
        pose = struct.unpack_from("<16f", data, at)
        at += FRAME_DTYPE.itemsize
        payloads = []
        for size in sizes:
            payload = data[at : at + size]
            payloads.append(b"".join(struct.unpack(f"{size}c", payload)) if bytewise else payload)
            at += size
        parsed.append((pose, *payloads))
    for index in range(0, num_frames, EVERY):
        pose, color, depth = parsed[index]
        write(out / f"{index:05d}", color, zlib.decompress(depth))
        np.savetxt(out / f"{index:05d}.txt", np.reshape(pose, (4, 4)))


def opencv_writer(stem: Path, color: bytes, depth: bytes) -> None:
    bgr = cv2.imdecode(np.frombuffer(color, np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(f"{stem}.jpg", bgr)
    cv2.imwrite(f"{stem}.png", np.frombuffer(depth, "<u2").reshape(DEPTH[::-1]))


def imageio_writer() -> Callable[[Path, bytes, bytes], None]:
    import imageio.v2 as imageio

    imageio.imwrite("<bytes>", np.zeros((8, 8), np.uint16), format="png")  # loads its plugins
    imageio.imwrite("<bytes>", np.zeros((8, 8, 3), np.uint8), format="jpeg")

    def write(stem: Path, color: bytes, depth: bytes) -> None:
        imageio.imwrite(f"{stem}.jpg", imageio.imread(color, format="jpeg"))
        imageio.imwrite(f"{stem}.png", np.frombuffer(depth, "<u2").reshape(DEPTH[::-1]))

    return write


if __name__ == "__main__":
    main()
