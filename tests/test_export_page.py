"""docs/export.md: its Python runs, its numbers are the code's."""

import json
import re
from pathlib import Path

import pytest
from make_shards import make_release

from scanshards import catalog, schema
from scanshards.export import TARGETS, export, llava, mds, video3dllm

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning", "ignore::ResourceWarning")
def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    release = make_release(tmp_path)
    catalog.write_catalogue(release)
    export([release / "*.tar", release / "val" / "*.tar"], tmp_path / "out", "video3dllm")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict = {}
    for indent, block in blocks:
        exec(re.sub(f"^{indent}", "", block, flags=re.MULTILINE), names)
    assert names["depth_mm"].shape == schema.MEMBERS["depth.npy.blosc"].shape
    assert len(names["info"]["data_list"]) == 3
    assert names["sample"]["texts"][0]["task"] == "sqa3d"


def test_it_names_what_there_is():
    for target in TARGETS:
        assert re.search(f"^### {target}", PAGE, re.MULTILINE)
    for column in set(mds.COLUMNS) - set(schema.FRAME_NAMES):
        assert f"`{column}`" in PAGE or re.fullmatch(r"frame(0[1-9]|[12]\d|30)", column)
    assert f"{video3dllm.BEV_WIDTH}×{schema.BEV_SIZE}" in PAGE
    assert f"first {video3dllm.MAX_PROPOSALS} proposals" in PAGE
    assert f"at least {llava.MIN_IOU}" in PAGE
    assert f"megatron-energon {catalog.ENERGON_VERSION}" in PAGE


def test_the_offset_it_states_is_the_measured_one(tmp_path):
    release = make_release(tmp_path, num_train=1, num_val=0)
    export(release / "*.tar", tmp_path / "out", "nerfstudio")
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["max_offset_px"] == [0.375, 0.375]
    assert "0.375 for 640×480, that is 2.0 mm at 3 m" in PAGE
    assert round(0.375 / 571.623718 * 3000, 1) == 2.0
