"""The Croissant description of a release (mlcommons.org/croissant): croissant.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanshards.catalog_card import summary

Index = Mapping[str, Any]

_PICTURES = (("frames", "*.frame*.jpg", "image/jpeg"), ("bev", "*.bev.png", "image/png"))
"""Sets of picture files that Croissant lists: name, pattern, type."""


def croissant(index: Index) -> dict[str, Any]:
    """croissant.json, version 1.0 of the format: every shard, a record for each clip and each picture."""
    archives = [
        {
            "@type": "cr:FileObject",
            "@id": shard["file"],
            "name": shard["file"],
            "description": f"{len(shard['samples'])} clips, split {shard['split']}",
            "contentSize": f"{shard['bytes']} B",
            "contentUrl": shard["file"],
            "encodingFormat": "application/x-tar",
            "sha256": shard["sha256"],
        }
        for shard in index["shards"]
    ]
    sets = [_file_set(index, *row) for row in _PICTURES]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": index["dataset"],
        "description": summary(index),
        "version": f"{index['format_version']}.0.0",
        "distribution": [*archives, *sets],
        "recordSet": [_clip_records(index), *(_picture_records(name) for name, *_ in _PICTURES)],
    }


def _file_set(index: Index, name: str, includes: str, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "description": f"{includes} of every clip",
        "containedIn": [{"@id": shard["file"]} for shard in index["shards"]],
        "encodingFormat": encoding,
        "includes": includes,
    }


def _clip_records(index: Index) -> dict[str, Any]:
    """The list of all clips, as in index.json."""
    rows = [
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
    types = {"offset": "sc:Integer", "bytes": "sc:Integer"}
    fields = [
        {"@type": "cr:Field", "@id": f"clips/{name}", "name": name, "dataType": types.get(name, "sc:Text")}
        for name in ("key", "split", "shard", "offset", "bytes")
    ]
    return _record_set("clips", "One record a clip: where it is", fields) | {"data": rows}


def _picture_records(name: str) -> dict[str, Any]:
    """One record a picture: the file's name (the clip's key is what comes before the dot) and its pixels."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{field}",
            "name": field,
            "dataType": kind,
            "source": {"fileSet": {"@id": f"{name}-files"}, "extract": {"fileProperty": source}},
        }
        for field, kind, source in (("file", "sc:Text", "filename"), ("image", "sc:ImageObject", "content"))
    ]
    return _record_set(name, f"One record a picture of {name}", fields)


def _record_set(name: str, description: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "field": fields,
    }


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The names that version 1.0 of the format defines."""
