"""The stage that joins the stores: same bytes, few rewrites, and no index that names a wrong file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import xxhash
from stage_results import add_scan, config_of, fill_bev, stores_of

from pipeline import samples, shards
from pipeline.shards import build_shards
from scanshards.catalog import catalogue
from scanshards.index import load_index
from scanshards.write import write_shard

SCANS = [f"scene{i:04d}_00" for i in range(4)]
VAL = ["scene0100_00"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Four train scans and a val scan through all stages (copied by tests that change something)."""
    root = tmp_path_factory.mktemp("base")
    entries = [add_scan(root, scan_id) for scan_id in SCANS]
    entries += [add_scan(root, scan_id, split="val") for scan_id in VAL]
    return root, entries


@pytest.fixture
def copy(base, tmp_path):
    root, entries = base
    shutil.copytree(root / "work", tmp_path / "work")
    return tmp_path, entries


def build(root: Path, entries, *overrides: str) -> dict:
    return build_shards(entries, stores_of(root), config_of(root, "shards.count=3", *overrides))


def contents(root: Path) -> dict[str, bytes]:
    """All files of the release but its catalogue, which is a function of the index."""
    out = root / "shards"
    made = catalogue(load_index(out)) if (out / "index.json").exists() else {}
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    assert made == {name: files[name] for name in made}
    return {name: data for name, data in files.items() if name not in made}


def assert_index_is_true(out: Path) -> None:
    """Every shard that the index names is there, byte for byte."""
    if not (out / "index.json").exists():
        return
    for shard in load_index(out)["shards"]:
        data = (out / shard["file"]).read_bytes()
        assert len(data) == shard["bytes"]
        assert hashlib.sha256(data).hexdigest() == shard["sha256"], shard["file"]


def test_a_scan_goes_where_its_hash_says(copy):
    root, entries = copy
    index = build(root, entries)
    found = {
        sample["key"]: (shard["file"], shard["split"])
        for shard in index["shards"]
        for sample in shard["samples"]
    }
    assert len(found) == len(entries)
    for entry in entries:
        number = xxhash.xxh3_64_intdigest(entry.scan_id.encode()) % 3
        folder = "val/" if entry.split == "val" else ""
        assert found[f"{entry.scan_id}-00"] == (f"{folder}scannet-{number:06d}.tar", entry.split)
    assert_index_is_true(root / "shards")
    assert load_index(root / "shards") == index
    assert set(contents(root)) == {"index.json"} | {shard["file"] for shard in index["shards"]}


def test_same_input_gives_same_bytes_in_any_order_and_place(base, tmp_path):
    root, entries = base
    outputs = []
    for name in ("a", "b"):
        shutil.copytree(root / "work", tmp_path / name / "work")
        build(tmp_path / name, entries if name == "a" else entries[::-1])
        outputs.append(contents(tmp_path / name))
    assert outputs[0] == outputs[1]


def test_a_second_run_writes_nothing(copy, monkeypatch):
    root, entries = copy
    index = build(root, entries)
    times = {path: path.stat().st_mtime_ns for path in (root / "shards").rglob("*")}
    monkeypatch.setattr(shards, "write_shard", None)
    monkeypatch.setattr(shards, "write_index", None)
    assert build(root, entries) == index
    assert {path: path.stat().st_mtime_ns for path in (root / "shards").rglob("*")} == times


def test_a_new_scan_changes_exactly_one_shard(copy):
    root, entries = copy
    build(root, entries[1:])
    before = contents(root)
    index = build(root, entries)
    after = contents(root)
    changed = {name for name in after if after[name] != before.get(name)}
    number = xxhash.xxh3_64_intdigest(entries[0].scan_id.encode()) % 3
    assert changed == {"index.json", f"scannet-{number:06d}.tar"}
    assert index["totals"]["samples"] == len(entries)
    build(root, entries[1:])
    assert contents(root) == before


def test_a_scan_that_changed_rewrites_its_shard_alone(copy):
    root, entries = copy
    build(root, entries)
    before = contents(root)
    stores_of(root)["bev"].build(SCANS[2], "key", lambda group: fill_bev(group, "another"))
    build(root, entries)
    after = contents(root)
    number = xxhash.xxh3_64_intdigest(SCANS[2].encode()) % 3
    assert {name for name in after if after[name] != before[name]} == {
        "index.json",
        f"scannet-{number:06d}.tar",
    }


def test_rejected_scans_are_listed_with_stage_and_reason_and_left_out(copy):
    root, entries = copy
    bad = [
        add_scan(root, "scene0200_00", clips="no usable frame"),
        add_scan(root, "scene0201_00", bev="no geometry"),
        add_scan(root, "scene0202_00", texts="aggregation.json: not JSON"),
    ]
    index = build(root, entries + bad)
    assert index["rejected"] == [
        {"scan_id": "scene0200_00", "reason": "clips: no usable frame"},
        {"scan_id": "scene0201_00", "reason": "bev: no geometry"},
        {"scan_id": "scene0202_00", "reason": "texts: aggregation.json: not JSON"},
    ]
    assert index["totals"]["scans"] == len(entries)


def test_nothing_but_rejected_scans_gives_an_index_without_shards(tmp_path):
    bad = [add_scan(tmp_path, "scene0200_00", clips="no usable frame")]
    for _ in range(2):
        index = build(tmp_path, bad)
        assert (index["totals"]["shards"], len(index["rejected"])) == (0, 1)
        assert load_index(tmp_path / "shards") == index


def test_a_scan_that_skipped_a_stage_stops_the_build_before_anything_changes(copy):
    root, entries = copy
    build(root, entries)
    before = contents(root)
    stores_of(root)["latents"].remove(SCANS[3])
    with pytest.raises(
        ValueError, match=rf"{SCANS[3]}: stage latents .* run `python -m pipeline.run latents`"
    ):
        build(root, entries)
    assert contents(root) == before
    with pytest.raises(ValueError, match=r"shards\.count: got 0"):
        build(root, entries, "shards.count=0")


def test_shards_and_temporary_files_that_do_not_belong_are_removed(copy):
    root, entries = copy
    out = root / "shards"
    build(root, entries, "shards.count=17")
    (out / "val").mkdir(exist_ok=True)
    for name in ("scannet-000099.tar", "val/scannet-000099.tar", ".scannet-000001.tar.99.tmp"):
        (out / name).write_bytes(b"old")
    (out / "notes.txt").write_text("the user's own file")
    index = build(root, entries)
    assert set(contents(root)) == {"index.json", "notes.txt"} | {s["file"] for s in index["shards"]}


@pytest.mark.parametrize("damage", ["missing", "shorter", "index damaged", "index missing"])
def test_what_is_not_as_the_index_says_is_written_again(copy, damage):
    root, entries = copy
    out = root / "shards"
    index = build(root, entries)
    before = contents(root)
    path = out / index["shards"][0]["file"]
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(path.read_bytes()[:-512])
    elif damage == "index missing":
        (out / "index.json").unlink()
    else:
        (out / "index.json").write_text("{")
    build(root, entries)
    assert contents(root) == before


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_kill_at_any_step_leaves_a_true_index_and_the_next_run_ends_the_same(copy, monkeypatch):
    """Every write, rename and deletion is tried as the last thing that happens."""
    root, entries = copy
    out = root / "shards"
    keep_assembled_samples(monkeypatch)
    build(root, entries[:3], "shards.count=2")
    start = root / "start"
    shutil.copytree(out, start)
    shutil.rmtree(out)
    build(root, entries)
    want = contents(root)
    steps = 0
    while True:
        shutil.rmtree(out)
        shutil.copytree(start, out)
        killed = run_until(root, entries, steps, monkeypatch)
        assert_index_is_true(out)
        if not killed:
            break
        build(root, entries)
        assert contents(root) == want, f"killed at step {steps}"
        steps += 1
    assert contents(root) == want
    assert steps > 2 * len([name for name in want if name.endswith(".tar")])


def keep_assembled_samples(monkeypatch) -> None:
    """Assemble a scan's samples only once per parameters: the order of file operations is what is tested."""
    assembled: dict[tuple, list] = {}
    assemble = samples.samples

    def cached(entry, groups, *rest):
        key = (entry.scan_id, *rest)
        if key not in assembled:
            assembled[key] = list(assemble(entry, groups, *rest))
        return assembled[key]

    monkeypatch.setattr(samples, "samples", cached)


def run_until(root: Path, entries, steps: int, monkeypatch) -> bool:
    """Build, stopping before file operation number `steps`; whether it was stopped."""
    left = steps
    replace, unlink = Path.replace, Path.unlink

    def counted(operation):
        def call(self: Path, *args, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return operation(self, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(replace))
        patch.setattr(Path, "unlink", counted(unlink))
        try:
            build(root, entries)
        except Killed:
            return True
    return False


def test_samples_are_assembled_one_at_a_time(copy, monkeypatch):
    """No sample is asked for before the one before it is in the file."""
    root, entries = copy
    log: list[str] = []

    def spy(path, samples):
        def logged():
            for sample in samples:
                log.append(f"made {sample.key}")
                yield sample
                log.append(f"written {sample.key}")

        return write_shard(path, logged())

    monkeypatch.setattr(shards, "write_shard", spy)
    build(root, entries[:4], "shards.count=1")
    assert log == [f"{what} {scan_id}-00" for scan_id in SCANS[:4] for what in ("made", "written")]
