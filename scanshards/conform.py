"""JSON values against the tables of `schema.py`: what fits is taken as it is, what does not is told."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from scanshards.schema import Field


def conform(fields: Sequence[Field], value: Any, where: str, *, strict: bool = False) -> Any:
    """The value with exactly the keys of `fields`, in their order, and their types; itself if it is so.

    Arrays become nested lists, whole numbers become floats where the table says float. ValueError: a key
    is missing, a type or size is wrong, a number is not finite; with `strict` also for a key too many.
    """
    tree = _tree(tuple(fields))
    return value if _fit(tree, [value]) else _conform(tree, value, where, strict)


_TYPES = {"int": int, "float": float, "string": str, "bool": bool}


@lru_cache
def _tree(fields: tuple[Field, ...]) -> Any:
    """Nested form of a table: {name: subtree}, [subtree] for lists of objects, Field at the leaves."""
    if fields[0].path.startswith("[]."):
        return [_tree(tuple(Field(f.path[3:], f.type, f.shape, f.meaning) for f in fields))]
    groups: dict[str, list[Field]] = {}
    for field in fields:
        head, _, rest = field.path.partition(".")
        groups.setdefault(head, []).append(Field(rest, field.type, field.shape, field.meaning))
    tree: dict[str, Any] = {}
    for head, members in groups.items():
        if head.endswith("[]"):
            tree[head[:-2]] = [_tree(tuple(members))]
        else:
            tree[head] = _tree(tuple(members)) if members[0].path else members[0]
    return tree


def _fit(tree: Any, values: Sequence[Any]) -> bool:
    """True if `_conform` would give back each of the values, which stand at one place of the table.

    What was written by this package fits; going through it column by column leaves the loops to C.
    """
    kinds = set(map(type, values))
    if isinstance(tree, list):
        return kinds <= {list} and _fit(tree[0], list(itertools.chain.from_iterable(values)))
    if isinstance(tree, dict):
        if not kinds <= {dict} or not set(map(tuple, values)) <= {tuple(tree)}:
            return False
        columns = zip(*map(dict.values, values), strict=True)  # nothing if there are no values
        return all(_fit(sub, column) for sub, column in zip(tree.values(), columns, strict=False))
    for size in tree.shape:
        if not kinds <= {list} or not (size is None or set(map(len, values)) <= {size}):
            return False
        values = list(itertools.chain.from_iterable(values))
        kinds = set(map(type, values))
    if not kinds <= {_TYPES[tree.type]}:
        return False
    if tree.type == "float":
        return all(map(math.isfinite, values))
    return tree.type != "int" or max(map(abs, values), default=0) < 1 << 53


def _conform(tree: Any, value: Any, where: str, strict: bool) -> Any:
    if isinstance(tree, Field):
        value = value.tolist() if hasattr(value, "tolist") else value
        return _conform_value(tree.type, tree.shape, value, where)
    if isinstance(tree, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: got {_short(value)}, expected a list")
        return [_conform(tree[0], item, f"{where}[{i}]", strict) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {_short(value)}, expected an object with {', '.join(tree)}")
    missing = [name for name in tree if name not in value]
    extra = [name for name in value if name not in tree] if strict else []
    if missing or extra:
        what = f"key {missing[0]!r} is missing" if missing else f"unknown key {_short(extra[0])}"
        raise ValueError(f"{where}: {what}, expected {', '.join(tree)}")
    return {name: _conform(sub, value[name], f"{where}.{name}", strict) for name, sub in tree.items()}


def _conform_value(kind: str, shape: tuple[int | None, ...], value: Any, where: str) -> Any:
    if shape:
        if not isinstance(value, list | tuple) or shape[0] not in (None, len(value)):
            size = "any number of" if shape[0] is None else shape[0]
            raise ValueError(f"{where}: got {_short(value)}, expected a list of {size} {kind}s")
        return [_conform_value(kind, shape[1:], item, where) for item in value]
    if kind == "float" and type(value) in (int, float):
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif kind == "int" and type(value) is int:
        if abs(value) < 1 << 53:
            return value
    elif (kind == "string" and type(value) is str) or (kind == "bool" and type(value) is bool):
        return value
    raise ValueError(f"{where}: got {_short(value)}, expected {'finite float' if kind == 'float' else kind}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
