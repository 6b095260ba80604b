"""Strict settings for all parts: dataclass defaults < YAML file < `a.b=c` on the command line.

A part declares frozen dataclasses with one documented field per setting; `from_tree` fills them and refuses
unknown keys and wrong types by name. PyYAML is imported on use: reading shards does not need it.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

OVERRIDE = re.compile(r"^[a-z0-9_.]+=")
"""An argument of this form is an override wherever it stands."""

Settings = TypeVar("Settings")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(options, overrides): takes the `key=value` arguments out of a command line, order kept."""
    options = [argument for argument in argv if not OVERRIDE.match(argument)]
    overrides = [argument for argument in argv if OVERRIDE.match(argument)]
    return options, overrides


def load_tree(overrides: Sequence[str], path: Path | None = None) -> dict[str, Any]:
    """Nested dicts of a YAML file (None: no file) with `section.key=value` laid over them.

    ValueError: the file holds no mapping, or an override goes through a value that is no section.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _parsed(path.read_text(), str(path)) or {}
        if not isinstance(tree, dict):
            raise ValueError(f"{path}: got a {type(tree).__name__}, expected a mapping of sections")
    for override in overrides:
        key, _, value = override.partition("=")
        node, *rest = key.split(".")
        target = tree
        while rest:
            target = target.setdefault(node, {})
            node, *rest = rest
            if not isinstance(target, dict):
                raise ValueError(f"override {override!r}: {key} does not name a section's field")
        target[node] = _parsed(value, f"override {override!r}") if value else ""
    return tree


def _parsed(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: got something that is not YAML ({reason}), expected a value") from error


def from_tree(cls: type[Settings], tree: dict[str, Any], path: str = "") -> Settings:
    """Build a frozen dataclass from nested dicts; a wrong key or type is a ValueError that names it."""
    if not isinstance(tree, dict):
        raise ValueError(f"{path or 'config'}: got {tree!r}, expected a section with fields")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(map(str, set(tree) - known))
    if unknown:
        where = f"{path}.{unknown[0]}" if path else unknown[0]
        raise ValueError(f"unknown key {where}; known here: {', '.join(sorted(known))}")
    values = {}
    for name, value in tree.items():
        where = f"{path}.{name}" if path else name
        hint = hints[name]
        values[name] = (
            from_tree(hint, value, where) if dataclasses.is_dataclass(hint) else _typed(hint, value, where)
        )
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ValueError(f"{where}: got {value!r}, expected one of {', '.join(map(str, choices))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    if origin is tuple:
        return _typed_tuple(typing.get_args(hint), value, where)
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and type(value) is str:
        value = _exponent(value)
    if hint is str and value is None:
        return ""
    if type(value) is not hint:
        raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), expected {hint.__name__}")
    return value


def _typed_tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """`tuple[X, ...]` or a fixed `tuple[X, Y]` from a YAML list."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: got {value!r}, expected a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise ValueError(f"{where}: got {len(value)} values, expected {len(hints)}")
    pairs = enumerate(zip(hints, value, strict=True))
    return tuple(_typed(hint, item, f"{where}[{i}]") for i, (hint, item) in pairs)


def _exponent(value: str) -> float | str:
    """YAML 1.1 reads `1e-5` (no dot) as a string; a user means the number."""
    try:
        return float(value) if re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value) else value
    except ValueError:
        return value
