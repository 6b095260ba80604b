"""The report's section about one clip: what was recorded, where it lies, what the latents keep."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import report_pictures as pictures
from pipeline.report_pictures import Bounds, Image
from scanshards import Clip
from scanshards.schema import BEV_SIZE, VIEW_IMAGE_SIZE

NUM_SHOWN = 8
TILE_PX = 168
MAX_TEXTS = 8
STRUCTURE = frozenset({"wall", "floor", "ceiling"})
"""Labels that are not drawn as boxes: they would cover the whole plan."""

Decode = Callable[[NDArray[np.float16]], Image]
"""(n, 16, h, w) scaled latents -> (n, 8h, 8w, 3) pictures."""


@dataclass(frozen=True)
class Section:
    """One clip as HTML, with the picture that the overview shows."""

    key: str
    split: str
    html: str
    thumbnail: str
    """`data:` address of the corner view."""


def scan_section(clip: Clip, decode: Decode | str) -> Section:
    """Everything about one clip; `decode` turns latents into pictures, or says why that cannot be done."""
    bounds = pictures.room_bounds(clip.coords)
    view = pictures.corner_view(clip, bounds)
    corner = pictures.data_uri(view)
    shown = np.linspace(0, len(clip.frames) - 1, NUM_SHOWN).astype(int)
    body = (
        f'<section class="scan" id="{escape(clip.key)}"><h3>{escape(clip.key)}'
        f'<span class="chip {escape(clip.split)}">{escape(clip.split)}</span></h3>'
        f'<p class="facts">{_facts(clip, bounds)}</p>'
        f'<div class="pair">{_plan(clip)}<figure><img src="{corner}" alt="the room from a corner above">'
        "<figcaption>Stored depth of all 32 frames as points in the world frame, seen from a corner; "
        "surfaces that face away are left out</figcaption></figure></div>"
        f"{_film(clip, shown, bounds, decode)}{_bev_latents(clip, decode)}{_texts(clip)}</section>"
    )
    return Section(clip.key, clip.split, body, pictures.data_uri(cv2.resize(view, (360, 270))))


def _facts(clip: Clip, bounds: Bounds) -> str:
    size_m = bounds.high_m - bounds.low_m
    indices = clip.meta["frame_indices"]
    sources = clip.objects["sources"]
    annotated = [
        label for label, source in zip(clip.objects["labels"], sources, strict=True) if source == "gt"
    ]
    drawn = [label for label in annotated if label not in STRUCTURE]
    num_proposals = len(sources) - len(annotated)
    parts = [
        f"{size_m[0]:.1f} × {size_m[1]:.1f} m seen",
        f"source frames {min(indices)}–{max(indices)}",
        f"{np.mean(clip.depth > 0):.0%} of depth measured",
        f"{len(drawn)} objects, {len(set(drawn))} classes",
        f"{len(clip.texts)} texts",
    ]
    if num_proposals:
        parts.insert(-1, f"{num_proposals} proposals")
    bev = clip.meta["bev"]
    if bev["present"]:
        parts.append(f"BEV covers {bev['valid_fraction']:.0%}, by {bev['renderer']}")
    return " · ".join(map(escape, parts))


def _plan(clip: Clip) -> str:
    """The BEV with the covered area, the camera path and the boxes drawn over it; switches below."""
    if not clip.meta["bev"]["present"]:
        return '<figure class="plan empty"><p class="quiet">no BEV of this scan</p></figure>'
    image = pictures.data_uri(clip.bev, quality=88)
    size = BEV_SIZE
    layers = (
        f'<g class="mask">{_mask_path(clip.bev_valid)}</g><g class="boxes">{_boxes(clip)}</g>'
        f'<g class="cameras">{_cameras(clip)}</g>{_scale_bar(clip.meta["bev"]["metres_per_pixel"])}'
    )
    switches = "".join(
        f'<label><input type="checkbox" class="show-{name}" checked> {label}</label>'
        for name, label in (("mask", "covered area"), ("boxes", "boxes"), ("cameras", "cameras"))
    )
    return (
        f'<figure class="plan"><svg viewBox="-0.5 -0.5 {size} {size}" role="img" aria-label="from above">'
        f'<image href="{image}" x="-0.5" y="-0.5" width="{size}" height="{size}"/>{layers}</svg>'
        f'<div class="switches">{switches}</div><figcaption>BEV, +y up. Cameras run from light to dark; '
        "hover over a box for its label</figcaption></figure>"
    )


def bev_pixels(
    points_m: NDArray[np.float64], world_from_bev: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    """(n, 3) world metres -> (n, 2) BEV (column, row); integers are pixel centres."""
    bev_from_world = np.linalg.inv(np.asarray(world_from_bev, np.float64))
    return (points_m @ bev_from_world[:3, :3].T + bev_from_world[:3, 3])[:, :2]


def _mask_path(valid: NDArray[np.bool_]) -> str:
    outlines = pictures.mask_outline(valid)
    path = "".join("M" + "L".join(f"{u} {v}" for u, v in outline) + "Z" for outline in outlines)
    return f'<path d="{path}"/>'


def _boxes(clip: Clip) -> str:
    """One rectangle per object that is no structure (dashed: a detector's proposal).

    Big ones carry their label where there is room.
    """
    drawn: list[str] = []
    labelled: list[tuple[float, float, float]] = []
    columns = zip(clip.objects["boxes"], clip.objects["labels"], clip.objects["sources"], strict=True)
    for box, label, source in columns:
        if label in STRUCTURE:
            continue
        center, half = np.array(box[:3]), np.array(box[3:]) / 2
        corners = bev_pixels(np.stack([center - half, center + half]), clip.meta["bev"]["world_from_bev"])
        (x, y), (width, height) = corners.min(axis=0), np.ptp(corners, axis=0)
        place = (x + width / 2, y + height / 2, 5.2 * len(label) + 4)  # middle, and the label's width
        fits = label and width > place[2] and height > 12
        text = ""
        if fits and not any(_overlap(place, other) for other in labelled):
            labelled.append(place)
            text = f'<text x="{place[0]:.1f}" y="{place[1] + 3:.1f}">{escape(label)}</text>'
        title = escape(f"{label} ({source}), {box[3]:.2f} × {box[4]:.2f} × {box[5]:.2f} m".strip())
        drawn.append(
            f'<g class="{source}" style="--hue:{zlib.crc32(label.encode()) % 360}"><title>{title}</title>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>{text}</g>'
        )
    return "".join(drawn)


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    """Two labels, each (x, y) of the middle and its width, 10 pixels high."""
    return abs(a[1] - b[1]) < 10 and abs(a[0] - b[0]) < (a[2] + b[2]) / 2


def _cameras(clip: Clip) -> str:
    """The path of the 32 cameras, and at every fourth a wedge that opens where it looks."""
    world_from_cam = clip.world_from_cam
    to_bev = clip.meta["bev"]["world_from_bev"]
    places = bev_pixels(world_from_cam[:, :3, 3], to_bev)
    ahead = bev_pixels(world_from_cam[:, :3, 3] + 0.5 * world_from_cam[:, :3, 2], to_bev) - places
    line = " ".join(f"{u:.1f},{v:.1f}" for u, v in places)
    drawn = [f'<polyline points="{line}"/>']
    for index in range(0, len(places), 4):
        (u, v), (du, dv) = places[index], ahead[index]
        side = np.array([-dv, du]) * 0.45
        wedge = f"M{u:.1f} {v:.1f}L{u + du + side[0]:.1f} {v + dv + side[1]:.1f}"
        drawn.append(f'<path d="{wedge}L{u + du - side[0]:.1f} {v + dv - side[1]:.1f}Z"/>')
    for index, (u, v) in enumerate(places):
        lightness = 88 - 55 * index / max(1, len(places) - 1)
        drawn.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2.6" fill="hsl(24 95% {lightness:.0f}%)"/>')
    return "".join(drawn)


def _scale_bar(metres_per_pixel: float) -> str:
    width = 1.0 / metres_per_pixel
    x, y = BEV_SIZE - 14 - width, BEV_SIZE - 14
    return (
        f'<g class="scale"><path d="M{x:.1f} {y - 4}v4h{width:.1f}v-4"/>'
        f'<text x="{x + width / 2:.1f}" y="{y - 5}">1 m</text></g>'
    )


def _film(clip: Clip, shown: NDArray[np.int64], bounds: Bounds, decode: Decode | str) -> str:
    """Rows of the same frames: colour, depth, coordinates, decoded latents."""
    far_mm = float(np.percentile(clip.depth[clip.depth > 0], 99)) if (clip.depth > 0).any() else 1.0
    frames, depth, coords = clip.frames[shown], clip.depth[shown], clip.coords[shown]
    size_m = bounds.high_m - bounds.low_m
    axes = ", ".join(f"{axis} {extent:.1f} m" for axis, extent in zip("xyz", size_m, strict=True))
    rows = [
        ("Colour", "stored JPEG", list(frames)),
        ("Depth", f"yellow 0 m, purple {far_mm / 1000:.1f} m, black missing",
         [pictures.depth_picture(image, far_mm) for image in depth]),
        ("Coordinates", f"red, green, blue over {axes}; black missing",
         [pictures.coords_picture(image, bounds) for image in coords]),
    ]  # fmt: skip
    if not isinstance(decode, str):
        decoded = decode(clip.latents[shown, 0])
        seen = [_encoder_input(image) for image in frames]
        db = np.mean([pictures.psnr_db(a, b) for a, b in zip(decoded, seen, strict=True)])
        codec = clip.meta["latents"]["codec"]
        note = f"by {codec}, {VIEW_IMAGE_SIZE}×{VIEW_IMAGE_SIZE}, PSNR {db:.1f} dB over the frames shown"
        rows.append(("Decoded latents", note, list(decoded)))
    strips = "".join(
        f'<div class="row"><span class="label"><b>{escape(name)}</b> {escape(note)}</span>'
        f'<img src="{pictures.data_uri(pictures.strip(images, TILE_PX))}" alt="{escape(name)} of '
        f'{len(images)} frames"></div>'
        for name, note, images in rows
    )
    return f'<div class="film" tabindex="0">{strips}</div>'


def _encoder_input(frame: Image) -> Image:
    """The frame as the encoder saw it: bilinear without antialias, as the latents were made."""
    return cv2.resize(frame, (VIEW_IMAGE_SIZE, VIEW_IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)


def _bev_latents(clip: Clip, decode: Decode | str) -> str:
    if isinstance(decode, str):
        return f'<p class="quiet">Latents not decoded: {escape(decode)}</p>'
    if not clip.meta["bev"]["present"]:
        return ""
    (decoded,) = decode(clip.bev_latents[:1])
    db = pictures.psnr_db(decoded, clip.bev)
    figures = "".join(
        f'<figure><img src="{pictures.data_uri(image)}" alt="{escape(name)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, image in (
            ("Stored BEV", clip.bev),
            (f"BEV decoded from its latents, PSNR {db:.1f} dB", decoded),
        )
    )
    return f'<div class="pair small">{figures}</div>'


def _texts(clip: Clip) -> str:
    """Some texts, taken in turn from each task so that each shows."""
    columns = zip(*(clip.objects[name] for name in ("instance_ids", "labels", "sources")), strict=True)
    names = {instance_id: label for instance_id, label, source in columns if source == "gt"}
    by_task: dict[str, list[dict]] = {}
    for text in clip.texts:
        by_task.setdefault(text["task"], []).append(text)
    turns = [queue[turn] for turn in range(MAX_TEXTS) for queue in by_task.values() if turn < len(queue)]
    rows = "".join(
        f'<tr><td><span class="chip">{escape(text["task"])}</span></td>'
        f"<td>{escape(_asked(text, names))}</td><td>{escape(_answer(text, names))}</td></tr>"
        for text in turns[:MAX_TEXTS]
    )
    if not rows:
        return ""
    counts = ", ".join(f"{len(queue)} {task}" for task, queue in by_task.items())
    return (
        f'<details class="texts" open><summary>Texts: {escape(counts)}</summary><div class="scroll"><table>'
        "<thead><tr><th>task</th><th>asked</th><th>answer or target</th></tr></thead>"
        f"{rows}</table></div></details>"
    )


def _asked(text: dict, names: dict[int, str]) -> str:
    asked = " ".join(filter(None, (text["situation"], text["question"])))
    return asked or f"describe {_targets(text, names)}"


def _answer(text: dict, names: dict[int, str]) -> str:
    return " / ".join(text["answers"]) or _targets(text, names)


def _targets(text: dict, names: dict[int, str]) -> str:
    """`chair 3, chair 4`: label and instance id of what is meant."""
    return ", ".join(f"{names.get(i, 'object')} {i}" for i in text["target_ids"]) or "no object"
