"""What the tiny codec learns from: photographs out of PyPI packages, drawn leaves, rendered rooms.

docs/codec.md lists the photographs with their licences.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.layout import sample_scene
from pipeline.synth.render import render_views
from scanshards.schema import FRAME_SIZE

PHOTOS = {
    "skimage": (
        "data/astronaut.png data/coffee.png data/chelsea.png data/rocket.jpg data/camera.png data/coins.png "
        "data/brick.png data/grass.png data/gravel.png data/ihc.png"
    ),
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
}
HELD_OUT_PHOTO = {"skimage": "data/motorcycle_left.png"}
ROOM_SEEDS = 1_000_000
"""Far from the seeds of the embedded scans, so that those stay unseen."""


def photos(paths: dict[str, str]) -> list[NDArray[np.uint8]]:
    """RGB photographs (H, W, 3) out of installed packages; ValueError names the package that is missing."""
    images = []
    for package, names in paths.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ValueError(f"no package {package}: run `pip install scikit-image scikit-learn matplotlib`")
        for name in names.split():
            image = cv2.imread(str(Path(spec.origin).parent / name), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"{package} holds no readable {name}; expected the pinned version's files")
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return images


def leaves(count: int, seed: int, textures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """`count` dead-leaves pictures (256, 256, 3): discs and polygons of all sizes over each other, shaded or
    cut out of a photograph. Edges and occlusions then have the statistics of natural scenes (Lee 2001)."""
    return [_leaves(np.random.default_rng([seed, number]), textures) for number in range(count)]


def _leaves(
    rng: np.random.Generator, textures: list[NDArray[np.uint8]], size: int = 256
) -> NDArray[np.uint8]:
    canvas = random_crop(textures[rng.integers(len(textures))], size, rng).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    for radius in sorted(np.minimum(5.0 * (1 - rng.random(80)) ** -0.9, size), reverse=True):
        mask = np.zeros((size, size), np.uint8)
        center = rng.uniform(0, size, 2)
        if rng.random() < 0.4:
            axes = (radius, radius * rng.uniform(0.3, 1))
            cv2.ellipse(mask, (tuple(center), axes, float(rng.uniform(0, 180))), 255, -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(mask, [corners.round().astype(np.int32)], 255, cv2.LINE_AA)
        color = rng.uniform(20, 235) + rng.normal(0, 30, 3).astype(np.float32)
        fill = color + rng.uniform(-50, 50) * (ramp[:, None, None] if rng.random() < 0.5 else ramp[:, None])
        if rng.random() < 0.3:
            fill = random_crop(textures[rng.integers(len(textures))], size, rng).astype(np.float32)
        alpha = (mask / np.float32(255))[..., None]
        canvas += alpha * (fill - canvas)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def rooms(numbers: Iterable[int], views: int, seed: int) -> list[NDArray[np.uint8]]:
    """`views` rendered pictures (384, 384, 3) of each of the numbered procedural rooms."""
    pictures: list[NDArray[np.uint8]] = []
    for number in numbers:
        scene_seed = ROOM_SEEDS + 1000 * seed + number
        scene = sample_scene("codec", seed=scene_seed)
        views_of_room = render_views(scene, views, width=FRAME_SIZE, height=FRAME_SIZE, seed=scene_seed)
        pictures.extend(views_of_room)
    return pictures


def random_crop(image: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random square resized to (size, size, 3), by area or bilinear without antialias as the pipeline does;
    some are turned, mirrored or get other colours."""
    side = int(min(size * 2 ** rng.uniform(-0.4, 1.3), *image.shape[:2]))
    x, y = (int(rng.integers(length - side + 1)) for length in (image.shape[1], image.shape[0]))
    square = image[y : y + side, x : x + side]
    method = cv2.INTER_AREA if side > size and rng.random() < 0.5 else cv2.INTER_LINEAR
    square = np.rot90(
        cv2.resize(square, (size, size), interpolation=method), rng.integers(4) * (rng.random() < 0.3)
    )
    if rng.random() < 0.5:
        square = square[:, ::-1]
    if rng.random() < 0.6:
        gain = rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
        gray = square.mean(axis=2, keepdims=True)
        mixed = gray + rng.uniform(0.2, 1.4) * (square - gray)
        square = np.clip(mixed * gain + rng.uniform(-25, 25), 0, 255).astype(np.uint8)
    return square
