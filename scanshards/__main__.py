"""Look at shards and check them.

python -m scanshards ls shards/                          clips, one line each
python -m scanshards info shards/                        what a release is
python -m scanshards info --receipt shards/              what two labs compare that built the same
python -m scanshards verify shards/                      every hash, every member
python -m scanshards preview shards/ --out preview.html  a page of pictures
python -m scanshards export --to mds --out DIR shards/   the layout of another project
python -m scanshards preview --rerun shards/             the clips in three dimensions, for Rerun

A folder means all shards that its index.json lists; files, URLs and patterns work everywhere too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from scanshards.clip import Clip
from scanshards.export import RASTERS, TARGETS, export
from scanshards.index import load_index
from scanshards.preview import write_preview
from scanshards.read import open as open_clips
from scanshards.receipt import compare_receipts, compare_releases, receipt
from scanshards.recording import write_recording
from scanshards.verify import release_shards, verify

MAX_WIDTH = 10_000
"""Characters of a line of `ls`, more than any path has."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 if all was done, 1 if not, 2 if the command line is wrong (by argparse)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", markup=False)
        return 1


def run_ls(arguments: argparse.Namespace) -> int:
    clips = open_clips(_files(arguments.shards), fields=("texts", "objects"))
    rows = [_row(clip) for clip in clips]
    if arguments.json:
        return _print_json(rows)
    table = Table("key", "split", "frames", "texts", "objects", "BEV", "MB", "shard", box=None)
    for column in table.columns[2:7]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row["key"],
            row["split"],
            f"{row['first_frame']}–{row['last_frame']}",
            str(row["texts"]),
            str(row["objects"]),
            f"{row['bev_valid_fraction']:.0%}" if row["bev_present"] else "–",
            f"{row['bytes'] / 1e6:.1f}",
            row["file"],
        )
    _print_whole(table)
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    if arguments.receipt or arguments.against:
        return run_receipt(arguments)
    summary = summarise(arguments.shards)
    if arguments.json:
        return _print_json(summary)
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in summary.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "\n".join(f"{row['scan_id']}: {row['reason']}" for row in value) or "none"
        table.add_row(name.replace("_", " "), str(value))
    Console(highlight=False).print(table)
    return 0


def run_receipt(arguments: argparse.Namespace) -> int:
    """Print the receipt, or what differs from another's; 1 if something differs that must not."""
    folder = Path(arguments.shards[0])
    if len(arguments.shards) > 1 or not folder.is_dir():
        raise ValueError(f"--receipt: got {' '.join(arguments.shards)}, expected one release folder")
    mine = receipt(folder)
    if not arguments.against:
        return _print_json(mine)
    other = Path(arguments.against)
    theirs = receipt(other) if other.is_dir() else json.loads(other.read_text(encoding="utf-8"))
    found = compare_receipts(mine, theirs)
    gaps = list(compare_releases(folder, other)) if found and other.is_dir() else []
    out = Console(soft_wrap=True, highlight=False)
    for line in found:
        verdict = "may differ" if line.may_differ else "must not differ"
        out.print(f"{line.what}: {line.ours} here, {line.theirs} there ({verdict}) {line.why}", markup=False)
    for gap in gaps:
        size = f"at most {gap.max_abs:g}, mean {gap.mean_abs:g}, {gap.share:.3%} of the numbers"
        out.print(f"{gap.member}: in {gap.num_samples} samples, {size}", markup=False)
    out.print("equal byte for byte" if not found else f"{len(found)} differences", markup=False)
    return 1 if any(not line.may_differ for line in found) else 0


def run_verify(arguments: argparse.Namespace) -> int:
    out = Console(soft_wrap=True, highlight=False)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verify", total=len(_files(arguments.shards)))

        def on_shard(url: str) -> None:
            progress.update(task, advance=1, description=Path(url).name)

        report = verify(arguments.shards, on_shard)
    for problem in report.problems:
        out.print(str(problem), style="red", markup=False)
    found = f"{len(report.problems)} problems" if report.problems else "all is as written"
    size = f"{report.num_shards} shards, {report.num_samples} samples, {report.num_bytes / 1e6:.1f} MB"
    root = f", root hash {report.root_hash}" if report.root_hash else ""
    out.print(f"{size}: {found}{root}", markup=False)
    return 1 if report.problems else 0


def run_preview(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out or ("preview.rrd" if arguments.rerun else "preview.html"))
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    write = write_recording if arguments.rerun else write_preview
    shown = write(_files(arguments.shards), out, arguments.limit)
    hint = f"see it with `rerun {out}`" if arguments.rerun else f"open {out}"
    Console(soft_wrap=True, highlight=False).print(f"{shown} clips: {hint}", markup=False)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    files = _files(arguments.shards)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("export", total=None)

        def on_clip(clip: Clip) -> None:
            progress.update(task, advance=1, description=clip.key)

        count = export(files, arguments.out, arguments.to, raster=arguments.raster, on_clip=on_clip)
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{count} clips as {arguments.to}: {arguments.out}", markup=False)
    return 0


def summarise(shards: list[str]) -> dict[str, Any]:
    """What `info` shows: release facts where a folder is given, then what the clips have in common."""
    summary: dict[str, Any] = {}
    if len(shards) == 1 and Path(shards[0]).is_dir():
        index = load_index(shards[0])
        names = ("dataset", "format_version", "root_hash", "parameter_hash", "versions", "totals", "rejected")
        summary = {name: index[name] for name in names}
    return summary | _tally(open_clips(_files(shards), fields=("texts", "objects")))


def _tally(clips: Iterable[Clip]) -> dict[str, Any]:
    """Counts over the clips, and the passports of their latents (of the first; `differ` if not all agree)."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("clips", "texts", "objects", "bev", "depth_size", "color_size")
    }
    sizes: Counter[str] = Counter()
    passports: dict[str, Any] = {}
    num_clips = 0
    for clip in clips:
        num_clips += 1
        counts["clips"][clip.split] += 1
        counts["texts"].update(text["task"] for text in clip.texts)
        counts["objects"].update(clip.objects["sources"])
        counts["bev"]["present" if clip.meta["bev"]["present"] else "absent"] += 1
        for kind in ("depth", "color"):
            source = clip.meta["source"]
            counts[f"{kind}_size"][f"{source[f'{kind}_width']}x{source[f'{kind}_height']}"] += 1
        for name, num_bytes in clip.member_bytes.items():
            sizes["frames" if name.startswith("frame") else name] += num_bytes
        for name in ("latents", "bev_latents"):
            same = passports.setdefault(name, clip.meta[name]) == clip.meta[name]
            passports[name] = clip.meta[name] if same else "differ between clips"
    mean_bytes = {name: total // num_clips for name, total in sizes.items()}
    return {name: dict(count) for name, count in counts.items()} | passports | {"mean_bytes": mean_bytes}


def _row(clip: Clip) -> dict[str, Any]:
    return {
        "key": clip.key,
        "split": clip.split,
        "first_frame": int(clip.frame_indices.min()),
        "last_frame": int(clip.frame_indices.max()),
        "texts": len(clip.texts),
        "objects": len(clip.objects["labels"]),
        "bev_present": clip.meta["bev"]["present"],
        "bev_valid_fraction": clip.meta["bev"]["valid_fraction"],
        "bytes": sum(clip.member_bytes.values()),
        "file": clip.file,
    }


def _files(names: Iterable[str]) -> list[str]:
    """Folders replaced by the shards that they list."""
    files: list[str] = []
    for name in names:
        is_folder = Path(name).is_dir()
        files += [shard.url for shard in release_shards(Path(name))] if is_folder else [name]
    return files


def _print_whole(table: Table) -> None:
    """Print a table as wide as it is: a terminal wraps long lines, and nothing is cut off for a pipe."""
    wide = Console(width=MAX_WIDTH)
    width = wide.measure(table).maximum
    Console(width=width).print(table, crop=False)


def _print_json(value: Any) -> int:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    return 0


def _positive(text: str) -> int:
    """A whole number of at least 1; argparse makes a usage error of anything else."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scanshards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, what in (
        ("ls", run_ls, "list clips"),
        ("info", run_info, "say what a release is"),
        ("verify", run_verify, "check every hash and decode every member"),
        ("export", run_export, "convert clips to the layout of another project (docs/export.md)"),
        ("preview", run_preview, "write an HTML page, or a Rerun recording, that shows clips"),
    ):
        command = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        command.add_argument(
            "shards", nargs="+", metavar="SHARDS", help="release folder, shard, pattern or URL"
        )
        command.set_defaults(run=run)
        if name in ("ls", "info"):
            command.add_argument("--json", action="store_true", help="for machines")
        if name == "info":
            command.add_argument("--receipt", action="store_true", help="what two labs compare, as JSON")
            command.add_argument("--against", help="another release folder or receipt: say what differs")
        if name == "export":
            command.add_argument("--to", required=True, choices=TARGETS, help="the layout")
            command.add_argument("--out", required=True, metavar="DIR", help="the folder to fill")
            command.add_argument(
                "--raster",
                choices=RASTERS,
                default="crop",
                help="pictures as stored, or (video3dllm) at their recorded place (default: crop)",
            )
        if name == "preview":
            command.add_argument("--rerun", action="store_true", help="write a Rerun recording instead")
            command.add_argument("--out", help="the file (default: preview.html, with --rerun preview.rrd)")
            command.add_argument("--limit", type=_positive, default=12, help="clips to show (default: 12)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
