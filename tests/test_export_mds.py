"""MosaicML's MDS: read back by a reader written from its description, and (slow) by the library itself."""

import io
import json
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from make_shards import make_sample
from PIL import Image

import scanshards
from scanshards.export import export, mds
from scanshards.write import write_shard

NUM_TRAIN = mds.CLIPS_PER_SHARD + 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[list[Path], Path]:
    """(shards, the export of them): more training clips than one MDS shard holds, of four different kinds."""
    folder = tmp_path_factory.mktemp("mds")
    train = [make_sample(f"room{i:02d}", seed=i % 4) for i in range(NUM_TRAIN)]
    shards = [folder / "scannet-000000.tar", folder / "scannet-000001.tar"]
    write_shard(shards[0], train)
    write_shard(shards[1], [make_sample("room99", split="val", seed=1)])
    assert export(shards, folder / "out", "mds") == NUM_TRAIN + 1
    return shards, folder / "out"


def read_mds(folder: Path) -> Iterator[dict[str, Any]]:
    """The samples of one split, by the layout that the library documents."""
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    for shard in index["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        assert xxhash.xxh3_64_hexdigest(data) == shard["raw_data"]["hashes"]["xxh3_64"]
        (num,) = struct.unpack_from("<I", data)
        assert num == shard["samples"]
        offsets = struct.unpack_from(f"<{num + 1}I", data, 4)
        config = json.loads(data[8 + 4 * num : offsets[0]])
        assert all(shard[name] == value for name, value in config.items())
        assert offsets[-1] == len(data)
        for start, end in zip(offsets, offsets[1:], strict=False):
            yield read_sample(data[start:end], config)


def read_sample(data: bytes, config: dict[str, Any]) -> dict[str, Any]:
    sizes, position = [], 0
    for size in config["column_sizes"]:
        if size is None:
            (size,) = struct.unpack_from("<I", data, position)
            position += 4
        sizes.append(size)
    sample = {}
    for name, encoding, size in zip(config["column_names"], config["column_encodings"], sizes, strict=True):
        sample[name] = decode(encoding, data[position : position + size])
        position += size
    assert position == len(data)
    return sample


def decode(encoding: str, data: bytes) -> Any:
    if encoding == "str":
        return data.decode()
    if encoding == "json":
        return json.loads(data)
    if encoding in ("jpeg", "png"):
        return np.asarray(Image.open(io.BytesIO(data)))
    _, dtype, *shape = encoding.split(":")
    if shape:
        return np.frombuffer(data, dtype).reshape([int(size) for size in shape[0].split(",")])
    num_axes, size_type = divmod(data[0], 4)
    assert size_type == 0  # uint8
    return np.frombuffer(data, dtype, offset=1 + num_axes).reshape(list(data[1 : 1 + num_axes]))


def assert_same(sample: dict[str, Any], clip: scanshards.Clip) -> None:
    """Pictures through another JPEG decoder: within a few levels; all else to the last bit."""
    assert sample["key"] == clip.key
    for name in ("meta", "objects", "texts"):
        assert sample[name] == getattr(clip, name)
    for name in ("depth", "latents", "bev_latents", "bev"):
        np.testing.assert_array_equal(np.asarray(sample[name]), getattr(clip, name))
    np.testing.assert_array_equal(sample["patch_coords"], clip.patch_coords())
    np.testing.assert_array_equal(np.asarray(sample["bev_valid"]) > 0, clip.bev_valid)
    for i in range(32):
        apart = np.abs(np.asarray(sample[f"frame{i:02d}"]).astype(int) - clip.frame(i))
        assert apart.mean() < 1 and apart.max() < 40


def test_a_reader_written_from_the_description_gets_what_we_read(exported):
    shards, out = exported
    clips = list(scanshards.open(shards))
    samples = [*read_mds(out / "train"), *read_mds(out / "val")]
    assert len(samples) == len(clips)
    for sample, clip in list(zip(samples, clips, strict=True))[3::4]:
        assert_same(sample, clip)
    assert [sample["key"] for sample in samples] == [clip.key for clip in clips]


def test_shards_hold_a_fixed_number_of_clips(exported):
    _, out = exported
    rows = json.loads((out / "train" / "index.json").read_text())["shards"]
    assert [row["samples"] for row in rows] == [mds.CLIPS_PER_SHARD, NUM_TRAIN - mds.CLIPS_PER_SHARD]
    assert json.loads((out / "export.json").read_text())["samples"] == {"train": NUM_TRAIN, "val": 1}


PACKAGES = ("mosaicml-streaming==0.13.0", "brotli", "zstd", "python-snappy", "cramjam", "catalogue")
READ_WITH_LIBRARY = """
import sys, types
from importlib.machinery import ModuleSpec
for name in ("torchvision", "torchvision.datasets", "torchvision.transforms.functional",
             "torchvision.transforms"):  # only its picture benchmarks use it
    module = types.ModuleType(name)
    module.__spec__, module.__path__ = ModuleSpec(name, None), []
    module.VisionDataset, module.to_tensor = object, None
    sys.modules[name] = module
sys.path.insert(0, sys.argv[1])
import scanshards
from streaming import StreamingDataset
from test_export_mds import assert_same
clips = {clip.key: clip for clip in scanshards.open(sys.argv[3:])}
for split in ("train", "val"):
    dataset = StreamingDataset(local=sys.argv[2], split=split, batch_size=1, validate_hash="xxh3_64")
    for i in range(len(dataset)):
        sample = dataset[i]
        assert_same(sample, clips.pop(sample["key"]))
assert not clips, clips
"""


@pytest.mark.slow
def test_the_library_itself_reads_it(exported, tmp_path):
    """In an environment of its own: the library pins older numpy and transformers than this project."""
    shards, out = exported
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    (packages / "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"cannot install {PACKAGES[0]}: {installed.stderr.strip().splitlines()[-1]}")
    tests = Path(__file__).parent
    subprocess.run([python, "-c", READ_WITH_LIBRARY, tests, out, *shards], check=True, cwd=tests.parent)
