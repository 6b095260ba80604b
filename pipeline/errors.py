"""The one exception by which a stage sets a scan aside; anything else is a bug and stops the run."""


class ScanError(ValueError):
    """A scan cannot be used. The message says what, got and expected; the ledger and the index keep it."""
