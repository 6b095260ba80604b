"""Which source files a stage's result depends on: its module and what that imports of this project."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

INFRASTRUCTURE = {
    "pipeline",
    "scanshards",
    "pipeline.config",
    "pipeline.errors",
    "pipeline.jobs",
    "pipeline.scans",
    "pipeline.store",
    "pipeline.timing",
    "scanshards.settings",
    "scanshards.write",
}
"""Modules that carry data from place to place and shape none of it, and the packages' lists of names."""


@functools.cache
def code_files(module: str) -> tuple[Path, ...]:
    """Source files of `module` (say `pipeline.clips`) and of what it imports of this project, sorted."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in INFRASTRUCTURE:
            continue
        path = _source(name)
        if path is not None:
            found[name] = path
            waiting += _imports(path)
    return tuple(sorted(found.values()))


def _source(module: str) -> Path | None:
    """The file of a module of this project; None for anything else (`from pipeline.bev import build`)."""
    if module.split(".")[0] not in ("pipeline", "scanshards"):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
