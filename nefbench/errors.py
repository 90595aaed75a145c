"""The exceptions a caller can act on; each text is one line with the thing and the remedy."""

from __future__ import annotations


class NefbenchError(Exception):
    """A request that cannot be carried out as stated; the command prints it and exits with 2."""


class ConfigError(NefbenchError, ValueError):
    """A configuration with an unknown key, an unknown kind or a value out of range."""


class SignalError(NefbenchError, ValueError):
    """A source of signals that cannot be opened or holds unusable data."""


class DatasetFormatError(NefbenchError, ValueError):
    """A neural dataset that is missing, foreign, damaged or of another format version."""


class CheckpointError(NefbenchError, ValueError):
    """A saved classifier that is missing, damaged or made for other weights."""


class TrainingError(NefbenchError, ValueError):
    """A neural dataset that cannot be classified as it stands (labels, splits, weights)."""


class MissingDependencyError(NefbenchError, ImportError):
    """An optional library is needed; the text holds the line that installs it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'nefbench[{extra}]'")
        self._arguments = (purpose, package, extra)

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        """Travel from a worker process with the arguments, not the text."""
        return MissingDependencyError, self._arguments


class Interrupted(NefbenchError):  # noqa: N818 - an outcome, not a fault
    """The user stopped the work; everything finished before is on disk."""
