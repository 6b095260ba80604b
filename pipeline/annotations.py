"""The official annotation files: found by name, checked record by record, sorted by scan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from scanshards.tasks import TASKS, OfficialFile

Record = dict[str, Any]
Part = tuple[str, str]
"""(task, split)"""

MAX_FILE_BYTES = 2**30
"""The largest official file has about 30 MB."""


@dataclass(frozen=True)
class Annotations:
    """Records of all official files that were found, by scan."""

    records: dict[str, dict[Part, list[Record]]] = field(default_factory=dict)
    files: dict[Part, list[Path]] = field(default_factory=dict)

    def of(self, scan_id: str) -> dict[Part, list[Record]]:
        """Records about one scan, tasks in table order and records in file order."""
        return self.records.get(scan_id, {})

    def files_of(self, scan_id: str) -> list[Path]:
        """The files that list the scan, without repeats."""
        return list(dict.fromkeys(path for part in self.of(scan_id) for path in self.files[part]))

    def scan_ids(self) -> list[str]:
        return sorted(self.records)


def load_annotations(folder: Path) -> Annotations:
    """Read all official files below `folder`; read once per process as long as they stay the same.

    ValueError: a file that is malformed (names file and record), that occurs twice, or a questions file of
    SQA3D without its answers file.
    """
    wanted = {
        official.file_name(split)
        for task in TASKS.values()
        for split in task.splits
        for official in task.files
    }
    paths = sorted(path for path in folder.rglob("*.json") if path.name in wanted)
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _load(stamps)


@lru_cache(maxsize=2)
def _load(stamps: tuple[tuple[str, int, int], ...]) -> Annotations:
    path_of: dict[str, Path] = {}
    for name in stamps:
        path = Path(name[0])
        if path.name in path_of:
            raise ValueError(f"{path.name} lies in {path_of[path.name].parent} and {path.parent}; keep one")
        path_of[path.name] = path
    result = Annotations()
    parsed: dict[Path, list[Record]] = {}
    for task in TASKS.values():
        for split in task.splits:
            paths = _paths(task.files, split, path_of)
            for official, path in zip(task.files, paths, strict=False):
                if path not in parsed:
                    parsed[path] = read_records(path, official)
            if paths:
                records = [parsed[path] for path in paths]
                result.files[task.name, split] = paths
                for record in records[0] if len(records) == 1 else _join(*records):
                    parts = result.records.setdefault(record["scene_id"], {})
                    parts.setdefault((task.name, split), []).append(record)
    return result


def _paths(files: Sequence[OfficialFile], split: str, path_of: dict[str, Path]) -> list[Path]:
    """Paths of a task's files of one split; [] when none is there."""
    names = [official.file_name(split) for official in files]
    absent = [name for name in names if name not in path_of]
    if len(absent) == len(names):
        return []
    if absent:
        there = path_of[next(name for name in names if name in path_of)]
        raise ValueError(f"{there} needs {absent[0]}, which was not found below the same root")
    return [path_of[name] for name in names]


def read_records(path: Path, official: OfficialFile) -> list[Record]:
    """Records of one official file with the fields that are used. ValueError names file and record."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {size} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); download it again") from error
    if official.container:
        tree = tree.get(official.container) if isinstance(tree, dict) else None
    if not isinstance(tree, list):
        where = f"a list under {official.container!r}" if official.container else "a list of records"
        raise ValueError(f"{path}: expected {where}; is this the official {official.name}?")
    return [_checked(record, official, f"{path} record {row}") for row, record in enumerate(tree)]


def _checked(record: Any, official: OfficialFile, where: str) -> Record:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: got {type(record).__name__}, expected an object")
    values = {}
    for name, types in official.fields.items():
        value = record.get(name)
        if type(value) not in types:
            expected = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{where}: {name} is {_short(value)}, expected {expected}")
        values[name] = _LISTS[name](value, where) if type(value) is list else value
    if "object_id" in values:
        values["object_id"] = _integer(values["object_id"], f"{where}: object_id")
    return values


def _answers(value: list[Any], where: str) -> list[str]:
    """Answers as strings; SQA3D wraps each in an object."""
    return _strings([a.get("answer") if isinstance(a, dict) else a for a in value], where, "answers")


def _strings(value: list[Any], where: str, name: str) -> list[str]:
    for item in value:
        if type(item) is not str:
            raise ValueError(f"{where}: {name} holds {_short(item)}, expected strings")
    return value


def _integers(value: list[Any], where: str) -> list[int]:
    return [_integer(item, f"{where}: object_ids") for item in value]


_LISTS = {
    "answers": _answers,
    "alternative_situation": lambda value, where: _strings(value, where, "alternative_situation"),
    "object_ids": _integers,
}


def _integer(value: Any, where: str) -> int:
    """ScanRefer writes ids as strings of digits, the others as integers."""
    if type(value) is int or (type(value) is str and value.isascii() and value.isdigit()):
        return int(value)
    raise ValueError(f"{where} is {_short(value)}, expected an integer id")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(questions: list[Record], answers: list[Record]) -> list[Record]:
    """SQA3D's questions with their answers, by id; without a partner: answers [], or no question."""
    answers_of = {str(record["question_id"]): record["answers"] for record in answers}
    asked = {str(record["question_id"]) for record in questions}
    joined = [{**record, "answers": answers_of.get(str(record["question_id"]), [])} for record in questions]
    return joined + [record for record in answers if str(record["question_id"]) not in asked]
