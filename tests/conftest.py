"""Fixtures that several test modules share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real inputs kept beside the checkout (a real room, tiny FLUX weights, tokenizer, annotations)."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "scans").is_dir():
        pytest.skip(f"real inputs not found: no folder {path}")
    return path
