"""The other libraries: how each would be used on the same clips, imported only where an arm needs it.

Each reader gives a clip's (frames, depth, patch coordinates, latents) or (latents, texts). JPEG is decoded by
what the library brings (webdataset and MDS: Pillow); LitData brings torchvision's decoder, which needs
another build of torch, so its JPEGs are stored as bytes and decoded with OpenCV, as scanshards does. MDS and
LitData hold depth uncompressed and the patch coordinates ready made.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scanshards import schema
from tests.benchmarks import reading_data

PACKAGES = ("webdataset", "mosaicml-streaming", "litdata")
LATENT_SHAPE = (schema.NUM_FRAMES, 2, 16, 27, 27)


def make(folder: Path) -> None:
    """Write what is missing of the data sets of those libraries that are there."""
    found = versions()
    if found["mosaicml-streaming"]:
        reading_data.once(folder / "mds" / "latents", lambda out: write_mds_latents(folder, out))
    if found["litdata"]:
        for name, samples in (("full", reading_data.full_samples), ("latents", reading_data.latent_samples)):
            reading_data.once(folder / "litdata" / name, lambda out, s=samples: write_litdata(s(folder), out))


def versions() -> dict[str, str]:
    """Package -> version, "" if it is not there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def webdataset_full(folder: Path, coords: bool = True) -> Any:
    """Whole clips. Patch coordinates are not stored: stored depth is unprojected whole."""
    wanted = ("clip.json", ".jpg", "depth.npy.blosc", ".latents.npy")
    dataset = _webdataset(reading_data.full_shards(folder), wanted)
    return dataset.map(_full if coords else _without_coords)


def webdataset_latents(folder: Path) -> Any:
    """All shards; members that are not asked for are skipped before they are read."""
    dataset = _webdataset(reading_data.all_shards(folder), (".latents.npy", ".texts.json"))
    return dataset.map(lambda sample: (sample["latents.npy"], sample["texts.json"]))


def _webdataset(urls: list[str], wanted: tuple[str, ...]) -> Any:
    import webdataset as wds

    dataset = wds.WebDataset(urls, shardshuffle=False, select_files=lambda name: name.endswith(wanted))
    return dataset.decode("rgb8", wds.handle_extension("npy.blosc", _npy_blosc))


def _npy_blosc(data: bytes) -> NDArray[Any]:
    import io

    from numcodecs import blosc

    return np.load(io.BytesIO(blosc.decompress(data)), allow_pickle=False)


def _without_coords(sample: dict[str, Any]) -> tuple[Any, ...]:
    frames = np.stack([sample[name] for name in schema.FRAME_NAMES])
    return frames, sample["depth.npy.blosc"], None, sample["latents.npy"]


def _full(sample: dict[str, Any]) -> tuple[Any, ...]:
    frames, depth, _, latents = _without_coords(sample)
    return frames, depth, stored_patch_coords(depth, sample["clip.json"]), latents


def stored_patch_coords(depth: NDArray[np.uint16], meta: dict[str, Any]) -> NDArray[np.float32]:
    """(32, 14, 14, 3): all stored pixels unprojected, then the mean of those with depth."""
    crop, source = meta["crop"], meta["source"]
    across = source["depth_width"] / meta["resize"]["width"]
    down = source["depth_height"] / meta["resize"]["height"]
    u = np.floor((np.arange(crop["width"]) + crop["x"]) * across).astype(np.float32)
    v = np.floor((np.arange(crop["height"]) + crop["y"]) * down).astype(np.float32)
    (fx, _, cx), (_, fy, cy), _ = meta["depth_intrinsics"]
    patches = np.zeros((len(depth), 14, 14, 3), np.float32)
    for i, world_from_cam in enumerate(np.array(meta["world_from_cam"], np.float32)):
        z = depth[i].astype(np.float32) / 1000
        z[z == 0] = np.nan
        in_camera = np.stack([(u - cx) / fx * z, (v[:, None] - cy) / fy * z, z], axis=-1)
        coords = in_camera @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
        blocks = coords[:378, :378].reshape(14, 27, 14, 27, 3)
        patches[i] = np.nanmean(blocks, axis=(1, 3))
    return patches


def write_mds_latents(folder: Path, out: Path) -> None:
    streaming = _streaming()
    columns = {
        "key": "str",
        "latents": f"ndarray:float16:{','.join(map(str, LATENT_SHAPE))}",
        "texts": "json",
    }
    with streaming.MDSWriter(out=str(out), columns=columns) as writer:
        for sample in reading_data.latent_samples(folder):
            writer.write({**sample, "texts": json.loads(sample["texts"])})


def mds_full(folder: Path) -> Any:
    """What `export --to mds` wrote. A sample is always decoded whole: the view from above and objects too."""
    return _mds(folder / "mds" / "full" / "train", _mds_arrays)


def mds_latents_of_full(folder: Path) -> Any:
    return _mds(folder / "mds" / "full" / "train", _mds_latents)


def mds_latents(folder: Path) -> Any:
    """A data set of these columns alone, made for the purpose."""
    return _mds(folder / "mds" / "latents", _mds_latents)


def _mds_latents(sample: dict[str, Any]) -> tuple[Any, ...]:
    return sample["latents"], sample["texts"]


def _mds(local: Path, convert: Any) -> Any:
    streaming = _streaming()

    class Dataset(streaming.StreamingDataset):
        def __getitem__(self, index: int) -> Any:
            return convert(super().__getitem__(index))

    streaming.base.util.clean_stale_shared_memory()
    return Dataset(local=str(local), batch_size=1, shuffle=False)


def _mds_arrays(sample: dict[str, Any]) -> tuple[Any, ...]:
    frames = np.stack([np.asarray(sample[name.removesuffix(".jpg")]) for name in schema.FRAME_NAMES])
    return frames, sample["depth"], sample["patch_coords"], sample["latents"]


def _streaming() -> Any:
    """The library; it imports torchvision for data sets of its own that are not used here."""
    if "torchvision" not in sys.modules:
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            module = types.ModuleType(f"torchvision{name}")
            module.__spec__, module.__path__ = ModuleSpec(module.__name__, None), []
            module.VisionDataset, module.to_tensor = object, None
            sys.modules[module.__name__] = module
    import streaming

    return streaming


def write_litdata(samples: Iterator[dict], out: Path) -> None:
    import litdata

    rows = list(samples)
    litdata.optimize(
        fn=rows.__getitem__,
        inputs=list(range(len(rows))),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
    )


def litdata_full(folder: Path) -> Any:
    return _litdata(folder / "litdata" / "full", _litdata_arrays)


def litdata_latents_of_full(folder: Path) -> Any:
    """A sample is always read whole."""
    return _litdata(folder / "litdata" / "full", _litdata_latents)


def litdata_latents(folder: Path) -> Any:
    """A data set of these columns alone, made for the purpose."""
    return _litdata(folder / "litdata" / "latents", _litdata_latents)


def _litdata_latents(sample: dict[str, Any]) -> tuple[Any, ...]:
    return np.asarray(sample["latents"]), json.loads(sample["texts"])


def _litdata(folder: Path, convert: Any) -> Any:
    import litdata

    return litdata.StreamingDataset(input_dir=str(folder), shuffle=False, transform=convert)


def _litdata_arrays(sample: dict[str, Any]) -> tuple[Any, ...]:
    frames = np.zeros((schema.NUM_FRAMES, 384, 384, 3), np.uint8)
    for i, name in enumerate(schema.FRAME_NAMES):
        jpeg = np.frombuffer(sample[name], np.uint8)
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        frames[i] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return frames, *(np.asarray(sample[name]) for name in ("depth", "patch_coords", "latents"))
