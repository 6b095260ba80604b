"""Where a run lives: a fresh folder with its settings, or the folder of a run that goes on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from scanshards.files import list_shards
from scanshards.index import root_hash
from train.config import Config, save_config

CONFIG_FILE = "config.yaml"
VERSIONS_FILE = "versions.json"
LATEST = "latest"


def make(out: str) -> Path:
    """Create the folder of a new run. ValueError: it holds a run already.

    A path that ends in `latest` becomes a link to a fresh folder beside it, named by date and time.
    """
    path = Path(out)
    if path.name != LATEST:
        if (path / CONFIG_FILE).exists():
            raise ValueError(
                f"out={out}: holds a run already, expected a new folder; to go on with it: --resume {out}"
            )
        path.mkdir(parents=True, exist_ok=True)
        return path
    if path.exists() and not path.is_symlink():
        raise ValueError(
            f"out={out}: is a folder, expected a link to the last run; move it away or give another out="
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = path.with_name(stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
    link = path.with_name(f".{LATEST}-{os.getpid()}")
    link.symlink_to(folder.name)
    os.replace(link, path)
    return folder


def describe(
    run_dir: Path, config: Config, urls: Sequence[str], processes: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Save what is needed to repeat the run: config, tokenizer, versions, shards and their hash."""
    save_config(config, run_dir / CONFIG_FILE)
    tokenizer.save_pretrained(run_dir / "tokenizer")
    packages = ("torch", "transformers", "deepspeed", "numpy", "tokenizers", "scanshards")
    versions = {
        "command": sys.argv,
        "shards": list(urls),
        "shards_hash": shards_hash(urls),
        "processes": processes,
        "git": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
    (run_dir / VERSIONS_FILE).write_text(json.dumps(versions, indent=1) + "\n")


def described(run_dir: Path) -> dict[str, Any]:
    """What `describe` wrote to versions.json. ValueError: no run is there."""
    path = run_dir / VERSIONS_FILE
    if not path.is_file():
        raise ValueError(f"--resume {run_dir}: no {VERSIONS_FILE} there, expected the folder of a run")
    return json.loads(path.read_text())


def shards_hash(urls: Sequence[str]) -> str | None:
    """Root hash over the hashes of these shards; None where a shard has no index."""
    entries = [shard.entry for shard in list_shards(list(urls))]
    return None if None in entries else root_hash(entry for entry in entries if entry is not None)


def _git_revision() -> str | None:
    """Commit of the checkout, with `+` if files differ from it; None outside one."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
