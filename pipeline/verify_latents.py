"""Re-encodes some samples of finished shards: do the stored latents belong to the stored pictures?

    python -m pipeline.run verify-latents [shards.out=… latents.codec=… latents.weights=… verify.samples=8]

Hashes say that the bytes are those that were written; this says that they are the right ones. It needs the
shards and the codec's weights, nothing else. Of each sample that the seed draws, all 32 frames and the
bird's-eye view (BEV) are encoded again and the stored latents are decoded. A picture fails if its latents

- hold NaN or infinity,
- differ from the new ones by more than `verify.max_difference`, or
- decode to a picture below `verify.min_psnr_db` against what the encoder saw.

A difference counts relative to the value, or to the RMS of its picture and moment where that is larger.
Encoding in double precision instead of float32 changes latents of the tiny codec by 0.001 at most (a step of
float16), an OpenCV that decodes one JPEG value in a hundred otherwise by one level, by 0.03.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import scanshards
from pipeline.config import Config, VerifyConfig
from pipeline.latents import Codec, load_codec, one_thread, resize_views
from pipeline.report_pictures import psnr_db
from scanshards import Clip
from scanshards.index import load_index
from scanshards.schema import BEV_SIZE, VIEW_IMAGE_SIZE

MIN_PSNR_DB = {"tiny": 18.0, "taef1": 16.0, "flux": 20.0}
"""What each codec can be held to on any picture, 6 dB below the worst of docs/codec.md (flux: a choice).
Latents of another frame of the same room decode to 7 to 14 dB."""
FIELDS = ("frames", "bev", "latents", "bev_latents")
MOMENTS = ("mean", "std")
MAX_NAMED = 3
MAX_WIDTH = 10_000
"""Characters of a line of the table, more than any has."""


@dataclass(frozen=True)
class Compared:
    """Stored latents of n pictures beside new ones; one value a picture."""

    exact: NDArray[np.float64]
    """Share of the values that are equal bit for bit."""
    difference: NDArray[np.float64]
    """(n, m) the largest relative difference of each moment; NaN where a stored value is NaN or infinite."""
    latent_psnr_db: NDArray[np.float64]
    """Of the stored values against the new ones, whose largest is the peak."""
    psnr_db: NDArray[np.float64]
    """Of the decoded picture against what the encoder saw; NaN where it cannot be decoded."""

    def problems(self, names: Sequence[str], max_difference: float, min_psnr_db: float) -> Iterator[str]:
        """What is wrong with each picture, in order."""
        for name, differences, psnr in zip(names, self.difference, self.psnr_db, strict=True):
            worst = int(np.argmax(differences))  # NaN, if there is one
            if np.isnan(differences[worst]):
                yield f"{name}: {MOMENTS[worst]} holds NaN or infinity"
            elif differences[worst] > max_difference:
                yield (
                    f"{name}: {MOMENTS[worst]} differs by {differences[worst]:.3g} from what its picture "
                    f"encodes to, expected at most {max_difference:g}"
                )
            elif psnr < min_psnr_db:
                yield f"{name}: decodes to {psnr:.1f} dB of its picture, expected at least {min_psnr_db:g}"


@dataclass(frozen=True)
class Checked:
    """One sample."""

    key: str
    views: Compared
    bev: Compared | None
    """None: the sample has no BEV."""
    problems: tuple[str, ...]


def verify_latents(config: Config) -> str:
    """Print a table with one row a sample; returns the line that says that all is well.

    ValueError: a sample fails, there are no shards, or they hold latents of other weights than the parameters
    name. CorruptSample: damage that the hashes tell.
    """
    codec = load_codec(config.latents)
    rows = list(check_samples(config, codec))
    _print_table(rows)
    failed = [row for row in rows if row.problems]
    if failed:
        named = "; ".join(f"{row.key} {row.problems[0]}" for row in failed[:MAX_NAMED])
        raise ValueError(
            f"{len(failed)} of {len(rows)} samples of {config.shards.out} have latents that are not those of "
            f"their pictures: {named}. Do not train on them: build again without the old latents "
            "(rm -r work/latents.zarr), or, if all differ a little, raise verify.max_difference"
        )
    return f"verify-latents: {len(rows)} samples of {config.shards.out} are as {codec.name} encodes them"


def check_samples(config: Config, codec: Codec) -> Iterator[Checked]:
    """Check the samples that `verify.samples` and `verify.seed` choose, shard by shard."""
    root = Path(config.shards.out)
    if not (root / "index.json").is_file():
        raise ValueError(f"no shards in {root}: got no index.json; run `python -m pipeline.run all` first")
    chosen = choose_samples(load_index(root)["shards"], config.verify)
    if not chosen:
        raise ValueError(f"{root}: index.json lists no samples, expected at least one to verify")
    clips = (
        clip
        for file, keys in chosen.items()
        for clip in scanshards.open(root / file, fields=FIELDS)
        if clip.key in keys
    )
    total = sum(map(len, chosen.values()))
    for clip in track(clips, "verify-latents", total=total, console=Console(stderr=True), transient=True):
        yield check_clip(clip, codec, config.verify)


def choose_samples(shards: Sequence[Mapping[str, Any]], config: VerifyConfig) -> dict[str, set[str]]:
    """File -> keys, from the shards of index.json: the samples whose hash with the seed is smallest.

    A pure function of seed and keys; more samples include those of fewer.
    """

    def place(row: tuple[str, str]) -> bytes:
        return xxhash.xxh3_128_digest(f"{config.seed} {row[0]}".encode())

    rows = [(sample["key"], shard["file"]) for shard in shards for sample in shard["samples"]]
    drawn = sorted(rows, key=place)[: config.samples or None]
    return {
        file: {key for key, where in drawn if where == file} for file in sorted({row[1] for row in drawn})
    }


@one_thread()
def check_clip(clip: Clip, codec: Codec, config: VerifyConfig) -> Checked:
    """Encode one sample's pictures again. ValueError: its passports are not those of the codec."""
    _check_passports(clip, codec)
    limits = config.max_difference, config.min_psnr_db or MIN_PSNR_DB[codec.name]
    views = compare(clip.latents, resize_views(clip.frames), codec)
    problems = list(views.problems([f"frame {index}" for index in clip.frame_indices], *limits))
    bev = None
    if clip.meta["bev"]["present"]:
        picture = torch.from_numpy(clip.bev).permute(2, 0, 1)[None].float() / 255
        bev = compare(clip.bev_latents[None], picture, codec)
        problems += bev.problems(["BEV"], *limits)
    elif clip.bev_latents.any():
        problems.append("BEV: latents are not zero, but there is no picture")
    return Checked(clip.key, views, bev, tuple(problems))


def compare(stored: NDArray[np.float16], images: torch.Tensor, codec: Codec) -> Compared:
    """(n, m, 16, h, w) stored latents beside those of (n, 3, 8h, 8w) images in [0, 1]."""
    new = codec.encode(images)
    finite = np.isfinite(stored).all(axis=(1, 2, 3, 4))  # (n,)
    seen = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()  # (n, 8h, 8w, 3)
    decoded = codec.decode(torch.from_numpy(np.where(np.isfinite(stored[:, 0]), stored[:, 0], 0)))
    psnr = [psnr_db(a, b) if ok else np.nan for a, b, ok in zip(decoded, seen, finite, strict=True)]
    a, b = stored.astype(np.float64), new.astype(np.float64)
    error = np.where(np.isfinite(a), np.abs(a - b), np.nan)
    scale = np.maximum(np.abs(b), np.sqrt((b**2).mean(axis=(2, 3, 4), keepdims=True)))
    # A step of float16 is no difference, however small the values are.
    relative = np.maximum(error - np.spacing(new).astype(np.float64), 0) / scale
    with np.errstate(divide="ignore"):
        peak = np.abs(b).max(axis=(1, 2, 3, 4)) ** 2
        latent_psnr = 10 * np.log10(peak / (error**2).mean(axis=(1, 2, 3, 4)))
    exact = (stored.view(np.uint16) == new.view(np.uint16)).mean(axis=(1, 2, 3, 4))
    return Compared(exact, relative.max(axis=(2, 3, 4)), latent_psnr, np.array(psnr))


def _check_passports(clip: Clip, codec: Codec) -> None:
    """ValueError: a stored passport is not what the codec would write; the model id is only a name."""
    views, bev = (codec.passport(size, size) for size in (VIEW_IMAGE_SIZE, BEV_SIZE))
    for name, own in (("latents", views), ("bev_latents", bev | {"filter": "none"})):
        stored = clip.meta[name]
        if own["weights_sha256"] != stored["weights_sha256"]:
            raise ValueError(
                f"the shards hold {name} of {stored['codec']} ({stored['weights_sha256'][:12]}), the"
                f" parameters name {own['codec']} ({own['weights_sha256'][:12]}); set latents.codec and"
                " latents.weights"
            )
        wrong = [field for field in own if field != "model_id" and own[field] != stored[field]]
        if wrong:
            raise ValueError(
                f"{clip.key}: {name}.{wrong[0]} is {stored[wrong[0]]!r}, expected {own[wrong[0]]!r} with"
                " these weights; build the shards again"
            )


def _print_table(rows: Sequence[Checked]) -> None:
    """As wide as it is: nothing is cut off for a pipe."""
    heads = ("sample", "pictures", "bit-exact", "difference", "latents dB", "decoded dB", "worst dB", "")
    table = Table(box=None)
    for head in heads:
        table.add_column(head, justify="left" if head in ("sample", "pictures", "") else "right")
    for row in rows:
        table.add_row(row.key, *_cells("views", row.views), "FAIL" if row.problems else "ok")
        if row.bev is not None:
            table.add_row("", *_cells("BEV", row.bev))
    width = Console(width=MAX_WIDTH).measure(table).maximum
    Console(width=width, highlight=False).print(table, crop=False)


def _cells(name: str, compared: Compared) -> tuple[str, ...]:
    return (
        name,
        f"{compared.exact.mean():.2%}",
        f"{compared.difference.max():.2g}",
        f"{compared.latent_psnr_db.min():.1f}",
        f"{compared.psnr_db.mean():.1f}",
        f"{compared.psnr_db.min():.1f}",
    )
