"""The same tars through everybody's loaders: webdataset, Hugging Face datasets, DataLoader, Energon."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from make_shards import make_sample
from numcodecs import blosc
from PIL import Image

import scanshards
from scanshards import catalog, codec, schema
from scanshards.index import build_index, write_index
from scanshards.write import write_shard

KEYS = [f"room{i}-00" for i in range(5)]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Five different clips in three shards, with the catalogue."""
    folder = tmp_path_factory.mktemp("shards")
    entries = []
    for number, members in enumerate((KEYS[:2], KEYS[2:4], KEYS[4:])):
        path = folder / f"scannet-{number:06d}.tar"
        entry = write_shard(path, [make_sample(key[:-3], seed=int(key[4])) for key in members])
        entries.append(entry | {"split": "train", "inputs": ""})
    write_index(folder, build_index("made", "0123456789abcdef", entries, []))
    catalog.write_catalogue(folder)
    return folder


@pytest.fixture(scope="module")
def urls(release) -> list[str]:
    return [str(path) for path in sorted(release.glob("*.tar"))]


@pytest.fixture(scope="module")
def clips(urls) -> dict[str, scanshards.Clip]:
    return {clip.key: clip for clip in scanshards.open(urls)}


def assert_members(members: dict[str, bytes], clip: scanshards.Clip) -> None:
    """The files of a sample, decoded by common libraries alone."""
    assert set(members) == set(schema.MEMBERS) - {schema.COORDS_NAME}
    assert json.loads(members["clip.json"]) == clip.meta
    assert json.loads(members["texts.json"]) == clip.texts
    assert json.loads(members["objects.json"]) == clip.objects
    depth = np.load(io.BytesIO(blosc.decompress(members["depth.npy.blosc"])), allow_pickle=False)
    np.testing.assert_array_equal(depth, clip.depth)
    for name in ("latents", "bev_latents"):
        stored = np.load(io.BytesIO(members[f"{name}.npy"]), allow_pickle=False)
        np.testing.assert_array_equal(stored, getattr(clip, name))
    assert [members[name] for name in schema.FRAME_NAMES] == clip.frame_jpegs()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(members["bev.png"]))), clip.bev)


def test_plain_webdataset_gives_the_files_as_stored(urls, clips):
    import webdataset

    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == KEYS
    for sample in samples:
        members = {name: data for name, data in sample.items() if not name.startswith("__")}
        assert_members(members, clips[sample["__key__"]])


def test_webdatasets_own_decoders_know_the_members(urls, clips):
    import webdataset

    sample = next(iter(webdataset.WebDataset(urls, shardshuffle=False).decode("pil")))
    clip = clips[sample["__key__"]]
    assert sample["clip.json"] == clip.meta
    np.testing.assert_array_equal(sample["latents.npy"], clip.latents)
    np.testing.assert_array_equal(np.asarray(sample["bev.png"]), clip.bev)
    assert sample["frame31.jpg"].size == (384, 384)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_dataloader_over_webdataset_sees_every_clip_once(urls, num_workers):
    import webdataset
    from torch.utils.data import DataLoader

    dataset = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("__key__", "texts.json")
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    assert sorted(key for key, _ in loader) == KEYS


@pytest.mark.parametrize("num_workers", [0, 2])
def test_dataloader_over_our_stream_sees_every_clip_once(urls, clips, num_workers):
    from torch.utils.data import DataLoader

    stream = scanshards.stream(urls, seed=3, fields=("latents",))
    loaded = list(DataLoader(stream, batch_size=None, num_workers=num_workers))
    assert sorted(clip.key for clip in loaded) == KEYS
    for clip in loaded:
        np.testing.assert_array_equal(clip.latents, clips[clip.key].latents)


def test_hugging_face_streams_the_tars_without_the_card(urls, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets

    found = datasets.load_dataset(
        "webdataset", data_files={"train": urls}, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    rows = list(found)
    assert [row["__key__"] for row in rows] == KEYS
    for row in rows:
        clip = clips[row["__key__"]]
        assert row["clip.json"] == clip.meta
        assert row["texts.json"] == clip.texts
        assert row["objects.json"] == clip.objects
        np.testing.assert_array_equal(np.array(row["latents.npy"], np.float16), clip.latents)
        np.testing.assert_array_equal(np.asarray(row["bev_valid.png"]) > 0, clip.bev_valid)
        depth = codec.decode_npy_blosc(row["depth.npy.blosc"], "<u2", schema.MEMBERS["depth.npy.blosc"].shape)
        np.testing.assert_array_equal(depth, clip.depth)
        apart = np.abs(np.asarray(row["frame07.jpg"]).astype(int) - clip.frame(7))
        assert apart.mean() < 1


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
def test_energon_gives_whole_samples_to_a_cooker(release, clips):
    energon = pytest.importorskip("megatron.energon")

    @energon.stateless
    def cook(sample):
        known = ("clip.json", "texts.json", "latents.npy", "depth.npy.blosc", "frame00.jpg")
        return energon.basic_sample_keys(sample) | {name: sample[name] for name in known}

    class Encoder(energon.DefaultTaskEncoder):
        cookers = (energon.Cooker(cook),)

    dataset = energon.get_val_dataset(
        release,
        split_part="train",
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        task_encoder=Encoder(),
    )
    rows = list(energon.get_loader(dataset))
    assert [row["__key__"] for row in rows] == KEYS
    for row in rows:
        clip = clips[row["__key__"]]
        assert (row["clip.json"], row["texts.json"]) == (clip.meta, clip.texts)
        np.testing.assert_array_equal(row["latents.npy"], clip.latents)
        assert (
            row["depth.npy.blosc"]
            == make_sample(clip.scan_id, seed=int(clip.key[4])).members["depth.npy.blosc"]
        )
        assert tuple(row["frame00.jpg"].shape) == (3, 384, 384)
