"""The folder that an export fills: pieces appear whole or not at all, a second start goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from scanshards import codec
from scanshards.write import atomic_write_bytes, sync

DONE = "export.json"
"""Written last: what was exported, with what options, and what the target has to say."""
UNFINISHED = ".export-unfinished.json"
"""There from the start to the end: what is being exported."""
TEMPORARY = ".tmp"
"""Pieces are written below this folder."""


class ExportFolder:
    """One export in the making; `finished` if an earlier run has already done all of it.

    request: what decides the result; an export that was begun with another one is not continued.
    """

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self.out = out
        self._request = dict(request)
        self.finished = False
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file, expected a folder to fill")
        found = next((name for name in (UNFINISHED, DONE) if (out / name).is_file()), None)
        if found is not None:
            self._compare(out / found)
            self.finished = found == DONE
        elif out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds files of something else, expected a new or empty folder")
        if not self.finished:
            out.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out / TEMPORARY, ignore_errors=True)
            atomic_write_bytes(out / UNFINISHED, _text(self._request))

    def has(self, name: str) -> bool:
        """Whether the piece is there; then it is complete."""
        return (self.out / name).exists()

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new folder to fill; it takes its place `name` when the block ends, all of it on disk."""
        temporary = self.out / TEMPORARY / name
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        sync(temporary)
        place = self.out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(place)
        sync(place.parent)

    def file(self, name: str, data: bytes) -> None:
        """Write one whole file."""
        place = self.out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(place, data)

    @contextlib.contextmanager
    def lists(self) -> Iterator[JsonLists]:
        """JSON lists that are filled while the clips go by; they take their places when the block ends."""
        lists = JsonLists(self.out / TEMPORARY)
        try:
            yield lists
        finally:
            lists.close()
        for name in lists.names():
            temporary, place = lists.path(name), self.out / name
            sync(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(place)
            sync(place.parent)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """All is there: write `export.json`."""
        shutil.rmtree(self.out / TEMPORARY, ignore_errors=True)
        self.file(DONE, _text({**self._request, **facts}))
        (self.out / UNFINISHED).unlink()
        self.finished = True

    def _compare(self, path: Path) -> None:
        try:
            found = codec.decode_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove the folder or choose another") from error
        named = found if isinstance(found, dict) else {}
        for name, value in self._request.items():
            if named.get(name) != value:
                raise ValueError(
                    f"{path.parent}: holds an export with {name} {named.get(name)!r}, "
                    f"expected {value!r} to go on; remove it or choose another folder"
                )


class JsonLists:
    """JSON files, each one list or one object, written item by item: memory stays small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._ends: dict[str, str] = {}

    def add(self, name: str, item: Any, before: str = "", after: str = "") -> None:
        """Append one item to the list in file `name`; the same `before` and `after` enclose the list."""
        self._append(name, f"{before}[\n", f"\n]{after}\n", _compact(item))

    def put(self, name: str, key: str, value: Any) -> None:
        """Add one key, new to it, to the object in file `name`."""
        self._append(name, "{\n", "\n}\n", f"{_compact(key)}: {_compact(value)}")

    def names(self) -> list[str]:
        return sorted(self._files)

    def path(self, name: str) -> Path:
        return self._folder / name

    def close(self) -> None:
        """End every file; nothing can be added after it."""
        for name, file in self._files.items():
            file.write(self._ends[name])
            file.close()

    def _append(self, name: str, start: str, end: str, text: str) -> None:
        if name in self._files:
            self._files[name].write(",\n")
        else:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = self.path(name).open("w", encoding="utf-8", newline="\n")
            self._files[name].write(start)
            self._ends[name] = end
        self._files[name].write(text)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _text(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()
