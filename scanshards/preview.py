"""One self-contained HTML page that shows what clips hold: frames, depth, coordinates, BEV, texts."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scanshards import codec
from scanshards.clip import Clip
from scanshards.files import Urls
from scanshards.read import open as open_clips
from scanshards.write import atomic_write_bytes

_SHOWN_FRAMES = (0, 5, 10, 15, 20, 25, 31)
_THUMB_PX = 192
_MAX_TEXTS = 12
_JPEG_QUALITY = 82


def write_preview(urls: Urls, out: Path, limit: int = 12) -> int:
    """Write the gallery of the first `limit` clips to `out`; returns how many it shows."""
    if limit < 1:
        raise ValueError(f"limit {limit}: expected at least 1 clip to show")
    cards = [card_html(clip) for clip in itertools.islice(open_clips(urls), limit)]
    title = f"{len(cards)} clip{'s' if len(cards) != 1 else ''}"
    page = Template(_PAGE).substitute(title=title, cards="\n".join(cards))
    atomic_write_bytes(out, page.encode())
    return len(cards)


def card_html(clip: Clip) -> str:
    """One clip as an HTML section."""
    strips = {
        "colour": [clip.frame(i) for i in _SHOWN_FRAMES],
        "depth": depth_colors(clip.depth[list(_SHOWN_FRAMES)]),
        "coordinates": coords_colors(clip.coords[list(_SHOWN_FRAMES)]),
    }
    rows = "".join(
        f'<div class="strip"><span>{name}</span>{"".join(_image(_thumb(p), name) for p in pictures)}</div>'
        for name, pictures in strips.items()
    )
    bev = _image(bev_with_cameras(clip), "from above, with the camera's path") + _image(
        np.repeat(clip.bev_valid[..., None] * np.uint8(255), 3, axis=2), "seen from above"
    )
    return Template(_CARD).substitute(
        key=escape(clip.key),
        facts=_facts(clip),
        rows=rows,
        bev=bev,
        objects=_objects(clip.objects["labels"]),
        texts=_texts(clip.texts),
    )


def depth_colors(depth_mm: NDArray[np.uint16]) -> list[NDArray[np.uint8]]:
    """(n, H, W) uint16 to n (H, W, 3) pictures, near red to far blue, black where missing."""
    seen = depth_mm[depth_mm > 0]
    near, far = np.percentile(seen, (1, 99)) if seen.size else (0.0, 1.0)
    level = np.clip((far - depth_mm) / max(far - near, 1.0), 0, 1)
    pictures = []
    for shade, depth in zip((level * 255).astype(np.uint8), depth_mm, strict=True):
        color = cv2.cvtColor(cv2.applyColorMap(shade, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
        color[depth == 0] = 0
        pictures.append(color)
    return pictures


def coords_colors(coords: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """(n, H, W, 3) metres to n (H, W, 3) pictures: x red, y green, z blue; black where missing."""
    valid = np.isfinite(coords[..., 0])
    if not valid.any():
        return list(np.zeros(coords.shape, np.uint8))
    low, high = np.percentile(coords[valid][::17], (1, 99), axis=0)
    shade = np.clip((coords - low) / np.maximum(high - low, 1e-6), 0, 1) * 215 + 40
    return list(np.where(valid[..., None], shade, 0).astype(np.uint8))


def bev_with_cameras(clip: Clip) -> NDArray[np.uint8]:
    """(432, 432, 3) BEV with the camera's path drawn from light (first frame) to dark."""
    picture = clip.bev.copy()
    if not clip.meta["bev"]["present"]:
        return picture
    bev_from_world = np.linalg.inv(np.array(clip.meta["bev"]["world_from_bev"]))
    centres = clip.world_from_cam[:, :, 3] @ bev_from_world.T
    points = np.clip(np.rint(centres[:, :2]), -1000, 2000).astype(int)
    for i, (u, v) in enumerate(points):
        color = (255, 220 - 5 * i, 60)
        if i:
            cv2.line(picture, tuple(map(int, points[i - 1])), (int(u), int(v)), color, 1, cv2.LINE_AA)
        cv2.circle(picture, (int(u), int(v)), 3, color, -1, cv2.LINE_AA)
    return picture


def _facts(clip: Clip) -> str:
    meta, valid = clip.meta, float((clip.depth > 0).mean())
    facts = {
        "split": meta["split"],
        "dataset": meta["dataset"],
        "frames": f"{clip.frame_indices.min()} to {clip.frame_indices.max()}",
        "depth measured": f"{valid:.0%}",
        "BEV": f"{meta['bev']['valid_fraction']:.0%} covered" if meta["bev"]["present"] else "none",
        "latents": f"{meta['latents']['codec']} {'x'.join(map(str, clip.latents.shape))}",
        "size": f"{sum(clip.member_bytes.values()) / 1e6:.1f} MB",
    }
    return "".join(f"<li><b>{escape(name)}</b> {escape(str(value))}</li>" for name, value in facts.items())


def _objects(labels: list[str]) -> str:
    counts = Counter(label or "proposal" for label in labels).most_common()  # a detector names no class
    if not counts:
        return "<i>no objects</i>"
    return " ".join(f"<span class='tag'>{escape(label)} <b>{count}</b></span>" for label, count in counts)


def _texts(texts: list[dict[str, Any]]) -> str:
    if not texts:
        return "<p><i>no texts</i></p>"
    by_task: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        by_task.setdefault(text["task"], []).append(text)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_task.values()))  # some of every task
    shown = [text for text in turns if text is not None][:_MAX_TEXTS]
    rows = []
    for text in shown:
        asked = " ".join(filter(None, (text["situation"], text["question"]))) or "Describe the object."
        answer = "; ".join(text["answers"]) or f"objects {', '.join(map(str, text['target_ids'])) or 'none'}"
        rows.append(
            f"<tr><td>{escape(text['task'])}</td><td>{escape(asked)}</td><td>{escape(answer)}</td></tr>"
        )
    more = f"<p>… {len(texts) - len(shown)} more</p>" if len(texts) > len(shown) else ""
    return f"<table>{''.join(rows)}</table>{more}"


def _thumb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(rgb, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)


def _image(rgb: NDArray[np.uint8], alt: str) -> str:
    data = base64.b64encode(codec.encode_jpeg(rgb, _JPEG_QUALITY)).decode()
    height, width = rgb.shape[:2]
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/jpeg;base64,{data}">'


_CARD = """<section>
<h2>$key</h2><ul class="facts">$facts</ul>
<div class="strips">$rows</div>
<div class="lower"><div class="bev">$bev</div><div class="words"><h3>Objects</h3><p>$objects</p>
<h3>Texts</h3>$texts</div></div>
</section>"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>scanshards: $title</title>
<style>
:root { color-scheme: light dark; --card: #fff; --page: #f1f3f5; --ink: #1b1f24; --soft: #667;
  --line: #d8dce0; }
@media (prefers-color-scheme: dark) {
  :root { --card: #1c2126; --page: #12161a; --ink: #e6e9ec; --soft: #9aa5b1; --line: #30373e; }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1500px; margin: 0 auto; padding: 24px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px;
  margin: 0 0 24px; }
h1 { margin: 0 0 16px; font-size: 22px; } h2 { margin: 0; font: 600 18px ui-monospace, monospace; }
h3 { margin: 12px 0 4px; font-size: 14px; color: var(--soft); }
.facts { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; margin: 6px 0 14px; }
.facts b { color: var(--soft); font-weight: 500; }
.strips { overflow-x: auto; } .strip { display: flex; gap: 4px; margin-bottom: 4px; align-items: center; }
.strip span { flex: 0 0 86px; color: var(--soft); font-size: 13px; }
.strip img { width: calc((100% - 120px) / 7); min-width: 110px; height: auto; border-radius: 4px; }
.lower { display: flex; flex-wrap: wrap; gap: 20px; margin-top: 12px; }
.bev { display: flex; gap: 6px; } .bev img { width: 320px; height: 320px; border-radius: 6px; }
.words { flex: 1 1 420px; min-width: 0; } table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
td { border-top: 1px solid var(--line); padding: 4px 10px 4px 0; vertical-align: top; }
td:first-child { color: var(--soft); white-space: nowrap; } td:last-child { font-weight: 600; }
.tag { display: inline-block; border: 1px solid var(--line); border-radius: 99px; padding: 0 9px;
  margin: 2px 0; font-size: 13px; }
@media (max-width: 760px) { main { padding: 10px; } .bev { flex-wrap: wrap; } .bev img { width: 100%;
  height: auto; } }
</style></head>
<body><main><h1>scanshards: $title</h1>
$cards
</main></body></html>
"""
