"""Runs stages of the pipeline: `python -m pipeline.run STAGE [key=value …]`.

STAGE is one of `synth scans clips meshes bev latents texts shards report`, or `all` for all in that order;
`verify-latents` re-encodes some samples of finished shards.
Parameters: defaults < params.yaml in the current folder < `section.key=value`, for example

    python -m pipeline.run all scans.root=/data/scannet/scans work=work shards.out=shards
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from pipeline import ledger, scans, shards, stages
from pipeline.config import EMBEDDED, Config, ReportConfig, load_config
from pipeline.jobs import JobsFailed
from scanshards.settings import split_arguments

ORDER = ("synth", "scans", "clips", "meshes", "bev", "latents", "texts", "shards", "report")


def synth(config: Config) -> str:
    """Write the embedded scans; nothing to do when `scans.root` names real ones."""
    if config.scans.root != EMBEDDED:
        config.synth_dir.mkdir(parents=True, exist_ok=True)  # DVC wants a stage's output to exist
        return f"synth: scans.root={config.scans.root}, no synthetic scans needed"
    from pipeline.synth.build import build

    return f"synth: {build(config)}"


def inventory(config: Config) -> str:
    found = scans.take_inventory(config)
    scans.write_inventory(_inventory_path(config), found)
    num_val = sum(entry.split == "val" for entry in found.scans)
    return f"scans: {len(found.scans)} found in {config.scans_dir}, {num_val} held out"


def write_shards(config: Config) -> str:
    """Join the stores into shards. ValueError (after all is written) on more rejections than allowed."""
    found = scans.read_inventory(_inventory_path(config))
    stages.check_current(found, config)
    entries = found.scans
    all_stores = stages.stores(config)
    index = shards.build_shards(entries, all_stores, config)
    ledger.write_ledger(config.work_dir / "ledger", entries, all_stores)
    ledger.write_counts(config.work_dir / "counts.json", index, entries, all_stores)
    rejected = index["rejected"]
    totals, limit = index["totals"], config.limits.max_rejected
    line = f"shards: {totals['samples']} samples in {totals['shards']} shards, {config.shards.out}"
    if len(rejected) > limit:
        listed = "".join(f"\n  {row['scan_id']}: {row['reason']}" for row in rejected[:5])
        raise ValueError(
            f"{line}, but {len(rejected)} scans were rejected, expected at most {limit}; mend or remove "
            f"them, or set limits.max_rejected={len(rejected)}:{listed}"
        )
    return line


def report(config: Config) -> str:
    from pipeline.report import build_report

    run_dir = Path(config.report.run)
    if config.report.run != ReportConfig().run and not (run_dir / "log.jsonl").is_file():
        raise ValueError(f"report.run: no log.jsonl in {run_dir}, expected the folder of a training run")
    return f"report: open {build_report(config, Path(config.report.out), run_dir)}"


def verify_latents(config: Config) -> str:
    from pipeline.verify_latents import verify_latents

    return verify_latents(config)


def _scan_stage(name: str) -> Callable[[Config], str]:
    return lambda config: stages.run_stage(name, scans.read_inventory(_inventory_path(config)), config)


def _inventory_path(config: Config) -> Path:
    return config.work_dir / "scans.json"


COMMANDS: dict[str, Callable[[Config], str]] = {
    "synth": synth,
    "scans": inventory,
    **{name: _scan_stage(name) for name in stages.STAGES},
    "shards": write_shards,
    "report": report,
    "verify-latents": verify_latents,
}


def run(names: Sequence[str], config: Config) -> Iterator[str]:
    """Run the named stages one after the other; after each, a line that says what was done."""
    for name in names:
        if name not in ORDER:
            yield COMMANDS[name](config)
            continue
        config.work_dir.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        head, *more = COMMANDS[name](config).splitlines()
        yield "\n".join([f"{head}; {time.perf_counter() - start:.1f} s", *more])


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser("python -m pipeline.run", allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stage", choices=(*COMMANDS, "all"), metavar="STAGE")
    stage = parser.parse_args(arguments).stage
    console = Console(stderr=True, soft_wrap=True)
    try:
        config = load_config(overrides)
    except ValueError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 2
    try:
        for line in run(ORDER if stage == "all" else (stage,), config):
            console.print(line, highlight=False, markup=False)
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to go on", style="red", highlight=False)
        return 130
    except (ValueError, OSError, JobsFailed) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
