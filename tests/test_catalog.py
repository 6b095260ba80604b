"""Dataset card, Croissant and Energon files: functions of index.json, read by the programs they are for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from make_shards import make_release, make_sample

from scanshards import catalog, catalog_card, codec, schema
from scanshards.index import build_index, load_index, write_index
from scanshards.write import Sample, write_shard

SHARDS = ["scannet-000000.tar", "scannet-000001.tar", "val/scannet-000000.tar"]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Three training clips in two shards, a held-out one, and the catalogue."""
    folder = make_release(tmp_path_factory.mktemp("release"))
    catalog.write_catalogue(folder)
    return folder


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_it_is_a_function_of_the_index_alone(tmp_path):
    first, second = (make_release(tmp_path / name) for name in ("a", "b"))
    written = catalog.write_catalogue(first)
    assert written[-1] == catalog.ENERGON_INFO  # Energon refuses a folder without it
    for path in second.rglob("*.tar"):
        path.unlink()
    catalog.write_catalogue(second)
    for name in written:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert catalog.write_catalogue(first) == []


def test_it_follows_the_index(tmp_path):
    folder = make_release(tmp_path)
    catalog.write_catalogue(folder)
    index = load_index(folder)
    entries = [shard for shard in index["shards"] if shard["file"] != SHARDS[1]]
    catalog.retract(folder)
    assert not (folder / catalog.ENERGON_INFO).exists()
    write_index(folder, build_index("made", "0123456789abcdef", entries, []))
    assert set(catalog.write_catalogue(folder)) >= {"README.md", "croissant.json", catalog.ENERGON_INFO}
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar.idx")) == [
        f"{SHARDS[0]}.idx",
        f"{SHARDS[2]}.idx",
    ]
    assert SHARDS[1] not in (folder / "croissant.json").read_text()
    (folder / f"{SHARDS[0]}.idx").write_bytes(b"damaged")
    assert catalog.write_catalogue(folder) == [f"{SHARDS[0]}.idx"]


def test_a_release_without_shards_or_held_out_scans_has_one_too(tmp_path):
    write_index(tmp_path, build_index("made", "0123456789abcdef", [], []))
    catalog.write_catalogue(tmp_path)
    assert front_matter(tmp_path)["configs"][0]["data_files"] == []
    only_train = make_release(tmp_path / "train", num_val=0)
    catalog.write_catalogue(only_train)
    (files,) = front_matter(only_train)["configs"][0]["data_files"]
    assert files == {"split": "train", "path": SHARDS[:2]}


@pytest.mark.parametrize(
    ("samples", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K"), (2_000_000, "1M<n<10M")],
)
def test_the_card_says_what_the_release_is(release, samples, size):
    index = load_index(release)
    index["totals"]["samples"] = samples
    matter = yaml.safe_load(catalog_card.dataset_card(index).split("---\n")[1])
    assert (matter["size_categories"], matter["pretty_name"]) == ([size], "made")
    text = (release / "README.md").read_text()
    assert index["root_hash"] in text and "| train | 2 | 3 |\n| val | 1 | 1 |" in text
    assert 'scanshards.open("scannet-000000.tar")' in text


def test_the_cards_types_are_those_of_the_library(release, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    from datasets import Features, List, Value

    features = Features._from_yaml_list(front_matter(release)["dataset_info"]["features"])
    assert features._to_yaml_list() == catalog_card.hf_features()
    assert set(features) == {*schema.MEMBERS, "__key__", "__url__"}
    assert features["clip.json"]["world_from_cam"] == List(List(List(Value("float64"))))
    assert features["clip.json"]["crop"]["x"] == Value("int64")
    assert features["texts.json"] == List(
        {
            field.path[3:]: List(Value({"float": "float64", "int": "int64"}.get(field.type, "string")))
            if field.shape
            else Value("string")
            for field in schema.TEXT_FIELDS
        }
    )


def bare(sample: Sample) -> Sample:
    """A sample without texts and objects: nothing to guess their types from."""
    empty = {
        "texts.json": codec.encode_json([]),
        "objects.json": codec.encode_json({field.path: [] for field in schema.OBJECT_FIELDS}),
    }
    return Sample(sample.key, sample.meta, sample.members | empty)


def test_hugging_face_reads_the_folder_by_its_card(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    folder = make_release(tmp_path)
    samples = [bare(make_sample(f"room{i}")) for i in range(6)]  # more than the library guesses from
    entry = write_shard(folder / SHARDS[0], [*samples, make_sample("room6")])
    shards = [shard for shard in load_index(folder)["shards"] if shard["file"] != SHARDS[0]]
    entry |= {"file": SHARDS[0], "split": "train", "inputs": ""}
    write_index(folder, build_index("made", "0123456789abcdef", [*shards, entry], []))
    catalog.write_catalogue(folder)
    found = datasets.load_dataset(str(folder), streaming=True, cache_dir=str(tmp_path / "cache"))
    assert sorted(found) == ["train", "val"]
    rows = list(found["train"])
    assert [row["__key__"] for row in rows] == [*(f"room{i}-00" for i in range(7)), "scene0002_00-00"]
    assert [len(row["texts.json"]) for row in rows] == [0] * 6 + [3, 3]
    assert rows[6]["texts.json"] == codec.decode_json(make_sample().members["texts.json"])
    assert rows[6]["clip.json"]["world_from_cam"] == make_sample().meta["world_from_cam"]
    assert rows[0]["bev.png"].size == (432, 432) and rows[0][schema.COORDS_NAME] is None
    assert rows[0]["depth.npy.blosc"] == make_sample().members["depth.npy.blosc"]
    assert [row["__key__"] for row in found["val"]] == ["scene5000_00-00"]


READ_CROISSANT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.issues
clips = list(dataset.records("clips"))
frames = sorted((r["frames/file"].decode(), r["frames/image"].size) for r in dataset.records("frames"))
tops = {r["bev/file"].decode(): r["bev/image"].tobytes().hex() for r in dataset.records("bev")}
print(json.dumps([sorted(issues.errors), clips, frames, tops]))
"""


def test_croissant_is_valid_and_gives_clips_and_pictures(release, tmp_path):
    # In a process of its own: its cache of extracted archives goes by file name and is set at import.
    environment = {"CROISSANT_CACHE": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", READ_CROISSANT, str(release / "croissant.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "@context` is not standard" not in done.stderr
    errors, clips, frames, tops = json.loads(done.stdout)
    assert errors == []
    index = load_index(release)
    assert clips == [
        {
            "clips/key": sample["key"],
            "clips/split": shard["split"],
            "clips/shard": shard["file"],
            "clips/offset": sample["offset"],
            "clips/bytes": sample["bytes"],
        }
        for shard in index["shards"]
        for sample in shard["samples"]
    ]
    keys = sorted(clip["clips/key"] for clip in clips)
    assert frames == [[f"{key}.{name}", [384, 384]] for key in keys for name in schema.FRAME_NAMES]
    top = codec.decode_png(make_sample().members["bev.png"])
    assert tops == {f"{key}.bev.png": top.tobytes().hex() for key in keys}


def test_croissant_hashes_are_those_of_the_shards(release):
    value = json.loads((release / "croissant.json").read_text())
    found = {row["contentUrl"]: row["sha256"] for row in value["distribution"] if "sha256" in row}
    assert found == {shard["file"]: shard["sha256"] for shard in load_index(release)["shards"]}


def test_energons_own_preparation_gives_the_same_files(release, tmp_path):
    prepare = pytest.importorskip("megatron.energon.flavors.webdataset.prepare")
    copy = tmp_path / "copy"
    for name in SHARDS:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(release / name, copy / name)
    prepare.WebdatasetPreparator.prepare_dataset(
        copy, SHARDS, split_parts_patterns=[("train", "scannet-.*"), ("val", "val/.*")], workers=1
    )
    for name in [f"{name}.idx" for name in SHARDS] + [catalog.ENERGON_INFO]:
        assert (copy / name).read_bytes() == (release / name).read_bytes(), name


def test_energons_checker_accepts_the_release(release):
    pytest.importorskip("megatron.energon")
    command = [Path(sys.executable).with_name("energon"), "lint", release, "--dataset-config", "picture.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
