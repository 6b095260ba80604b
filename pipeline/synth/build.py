"""Stage `synth`: writes the embedded scans, their split lists, the label table and their texts.

    {work}/synth/scans/scene8000_00/…    training rooms; scene8100_00 … are held out
    {work}/synth/scannetv2_train.txt, scannetv2_val.txt, scannetv2-labels.combined.tsv
    {work}/synth/annotations/…

A scan is written under a temporary name and renamed when complete. Its marker `.synth.json` holds a hash of
what shaped it; a scan with the right marker is kept, folders without one are not ours and stay untouched.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import xxhash

from pipeline import jobs
from pipeline.config import Config, SynthConfig
from pipeline.synth.labels import label_table
from pipeline.synth.layout import ROOM_TYPES, sample_scene
from pipeline.synth.scene import Scene
from pipeline.synth.texts import write_annotations
from scanshards.write import atomic_write_bytes

GENERATOR_VERSION = 1
"""Raise it whenever the same parameters give other files."""
MARKER = ".synth.json"
TRAIN_ID, VAL_ID = "scene80{:02d}_00", "scene81{:02d}_00"
MAX_ROOMS = 100


def build(config: Config) -> str:
    """Bring the embedded scans up to date; returns one line that says what was done."""
    rooms = plan_rooms(config.synth)
    scans = config.synth_dir / "scans"
    scans.mkdir(parents=True, exist_ok=True)
    removed = remove_stale(scans, {scan_id for scan_id, _ in rooms})
    due = [room for room in rooms if not is_current(scans / room[0], config.synth, room)]
    items = [(scan_id, (scan_id, room_type, scans / scan_id, config.synth)) for scan_id, room_type in due]
    for _, outcome in jobs.run(write_room, items, config.dask, "synth"):
        if isinstance(outcome, jobs.Killed):
            raise jobs.JobsFailed(outcome.reason)
    write_tables(config.synth_dir, rooms)
    train, val = (
        [make_scene(*room, config.synth) for room in rooms if is_val(room[0]) == held_out]
        for held_out in (False, True)
    )
    write_annotations(config.synth_dir / "annotations", train, val, config.synth.seed)
    return f"{len(due)} scans written, {len(rooms) - len(due)} up to date, {removed} removed, in {scans}"


def plan_rooms(config: SynthConfig) -> list[tuple[str, str]]:
    """(scan id, kind of room) of every scan; kinds take turns, so that any few rooms differ.

    ValueError: more rooms than ids, or none.
    """
    for name, count in (("train_rooms", config.train_rooms), ("val_rooms", config.val_rooms)):
        if not 0 <= count <= MAX_ROOMS:
            raise ValueError(f"synth.{name}: got {count}, expected 0 to {MAX_ROOMS}; set synth.{name}=…")
    ids = [TRAIN_ID.format(k) for k in range(config.train_rooms)]
    ids += [VAL_ID.format(k) for k in range(config.val_rooms)]
    kinds = ("living room", "bedroom", "office", "kitchen", "meeting room", "bathroom")
    assert set(kinds) == set(ROOM_TYPES)
    return [(scan_id, kinds[int(scan_id[7:9]) % len(kinds)]) for scan_id in ids]


def is_val(scan_id: str) -> bool:
    return scan_id.startswith("scene81")


def make_scene(scan_id: str, room_type: str, config: SynthConfig) -> Scene:
    """The scene of one planned room; its seed depends on `synth.seed` and its id alone."""
    seed = xxhash.xxh3_64_intdigest(f"{config.seed}/{scan_id}".encode()) & 0x7FFFFFFF
    return sample_scene(scan_id, seed, room_type)


def write_room(scan_id: str, room_type: str, folder: Path, config: SynthConfig) -> str:
    """Sample and write one room (runs in a worker process); returns its id."""
    write_scan(
        make_scene(scan_id, room_type, config), folder, config, marker_of(config, (scan_id, room_type))
    )
    return scan_id


def write_scan(scene: Scene, folder: Path, config: SynthConfig, marker: str = "") -> None:
    """Write the scene's files to `folder`, which appears (or is replaced) only when all are complete."""
    from pipeline.synth.scannet_files import write_scan_files

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_scan_files(scene, temporary, config)
    (temporary / MARKER).write_text(json.dumps({"scan_id": folder.name, "key": marker}) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def marker_of(config: SynthConfig, room: tuple[str, str]) -> str:
    """Hash of all that shapes one scan; the number of rooms does not."""
    values = dataclasses.asdict(config)
    del values["train_rooms"], values["val_rooms"]
    text = json.dumps([GENERATOR_VERSION, room, values], sort_keys=True)
    return xxhash.xxh3_64_hexdigest(text.encode())


def is_current(folder: Path, config: SynthConfig, room: tuple[str, str]) -> bool:
    """Whether the folder holds exactly what these parameters give."""
    marker = folder / MARKER
    return marker.is_file() and json.loads(marker.read_text()).get("key") == marker_of(config, room)


def is_ours(folder: Path) -> bool:
    """Whether stage `synth` wrote it; a copy under another name belongs to whoever made it."""
    marker = folder / MARKER
    return marker.is_file() and json.loads(marker.read_text()).get("scan_id") == folder.name


def remove_stale(scans: Path, wanted: set[str]) -> int:
    """Delete scans that we wrote and that are no longer planned, and torn leftovers."""
    removed = 0
    for folder in sorted(p for p in scans.iterdir() if p.is_dir()):
        torn = folder.name.startswith(".scene8") and folder.name.endswith(".tmp")
        if torn or (is_ours(folder) and folder.name not in wanted):
            shutil.rmtree(folder)
            removed += not torn
    return removed


def write_tables(root: Path, rooms: list[tuple[str, str]]) -> None:
    """The label table and the two split lists."""
    atomic_write_bytes(root / "scannetv2-labels.combined.tsv", label_table().encode())
    for name, held_out in (("train", False), ("val", True)):
        ids = sorted(scan_id for scan_id, _ in rooms if is_val(scan_id) == held_out)
        lines = "".join(f"{scan_id}\n" for scan_id in ids)
        atomic_write_bytes(root / f"scannetv2_{name}.txt", lines.encode())
