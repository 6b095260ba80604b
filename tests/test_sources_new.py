"""Adding a source is one file: the example of docs/data.md, dropped beside the others, is found and read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from source_layouts import LOST, box, depth_mm, entries, jpeg, matrix_text, png, write_seven_scenes

from pipeline import sources

DOCS = Path(__file__).resolve().parents[1] / "docs" / "data.md"


@pytest.fixture
def add_module(tmp_path, monkeypatch):
    """Put a module's text where Python looks for those of `pipeline.sources`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    names = []

    def add(name: str, text: str) -> None:
        (folder / f"{name}.py").write_text(text)
        names.append(name)
        sources.layouts.cache_clear()

    yield add
    for name in names:
        sys.modules.pop(f"pipeline.sources.{name}", None)
        vars(sources).pop(name, None)
    sources.layouts.cache_clear()


def example() -> str:
    (text,) = re.findall(r"## Adding a source.*?```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return text


def write_my_app(folder: Path, recording) -> None:
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True)
    (folder / "camera-intrinsics.txt").write_text(matrix_text(recording.depth_intrinsics))
    lines = [" ".join(map(repr, pose.ravel().tolist())) for pose in recording.poses]
    (folder / "poses.txt").write_text("\n".join(lines))
    for i in range(len(recording.poses)):
        (folder / "color" / f"{i:05d}.jpg").write_bytes(jpeg(recording, i))
        (folder / "depth" / f"{i:05d}.png").write_bytes(png(depth_mm(recording, i)))


def test_the_example_of_the_documentation_is_a_source(tmp_path, add_module):
    recording = box(steps=4)
    write_my_app(tmp_path / "scans" / "hall", recording)
    write_seven_scenes(tmp_path / "scans", "room", recording)
    assert [entry.scan_id for entry in entries(tmp_path / "scans")] == ["room"]
    add_module("my_app", example())
    hall, room = entries(tmp_path / "scans")
    assert (hall.scan_id, hall.source, room.source) == ("hall", "my_app", "seven_scenes")
    assert hall.files["frames"].num_files == 17
    with sources.open_source(hall) as source:
        good = np.arange(8) != LOST
        np.testing.assert_array_equal(source.poses[good], recording.poses[good])
        np.testing.assert_array_equal(source.depth(7), depth_mm(recording, 7))
        np.testing.assert_array_equal(source.alignment, sources.alignment(hall))


def test_a_module_that_lacks_a_name_is_told(add_module):
    add_module("half", 'LAYOUT = "SCAN/half"\nORDER = 5\n\n\ndef find(folder):\n    return []\n')
    with pytest.raises(
        TypeError, match=r"pipeline/sources/half.py: got a LAYOUT without open_scan, alignment"
    ):
        sources.layouts()


def test_the_table_names_every_layout_there_is():
    text = DOCS.read_text()
    for name in ("posed_images", "7-Scenes", "3DMatch", "TUM RGB-D", "SCAN/SCAN.sens"):
        assert name in text.split("## ScanNet")[0]
    assert set(sources.layouts()) == {"scannet", "posed_images", "seven_scenes", "tum"}
