"""The one exception by which a stage sets a scan aside; anything else is a bug and stops the run."""

from __future__ import annotations

from typing import Any


class ScanError(ValueError):
    """A scan cannot be used. The message says what, got and expected; the ledger and the index keep it.

    `ledger`: what became of the scan's frames as far as it is known (`fates.frame_groups`).
    """

    def __init__(self, message: str, ledger: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.ledger = ledger or []
