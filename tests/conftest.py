"""Fixtures that several test modules share."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config import Config, load_config


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real inputs kept beside the checkout (a real room, tiny FLUX weights, tokenizer, annotations)."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "scans").is_dir():
        pytest.skip(f"real inputs not found: no folder {path}")
    return path


SMALL = [
    "synth.train_rooms=2",
    "synth.val_rooms=1",
    "synth.frames=36",
    "synth.color_width=216",
    "synth.color_height=162",
    "synth.depth_width=160",
    "synth.depth_height=120",
    "synth.depth_noise=false",
    "shards.count=2",
]
"""Overrides for three embedded rooms that are built in seconds."""
STAGES = ("scans", "clips", "meshes", "bev", "latents", "texts", "shards")
"""From scans to shards."""


@dataclass(frozen=True)
class Build:
    """A finished small build of the embedded rooms."""

    folder: Path
    config: Config

    @property
    def train(self) -> str:
        return str(self.folder / "shards" / "scannet-*.tar")

    @property
    def val(self) -> str:
        return str(self.folder / "shards" / "val" / "scannet-*.tar")


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Build:
    """Three small embedded rooms taken through the whole pipeline once per test session."""
    from pipeline.run import run

    folder = tmp_path_factory.mktemp("build")
    places = [f"work={folder / 'work'}", f"shards.out={folder / 'shards'}"]
    config = load_config([*SMALL, *places, "dask.scheduler=none"], None)
    list(run(["synth", *STAGES], config))
    return Build(folder, config)


@pytest.fixture
def one_thread():
    """torch on one thread: its sums depend on how many there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
