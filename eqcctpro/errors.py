"""Every error that EQCCTPro raises on purpose.

::

    EQCCTProError
    +-- SettingsError            a parameter, option or configuration file is wrong
    |   +-- ResumeError          an unfinished run is in the way, or cannot be gone on with
    |       +-- ReplaceError     a finished run with other settings would be replaced
    +-- InputError               an archive, folder, file or waveform cannot be used
    |   +-- DecodeError          a file is not readable as miniSEED
    |   +-- InputChangedError    a file changed or vanished while the run went on
    |   +-- InputTimeoutError    a file could not be read in the time that was given
    +-- ModelError               a picker cannot be used
    |   +-- UnknownModelError    no such model
    |   +-- WeightsNotFoundError no weights under that name
    |   +-- WeightsError         weights are there but damaged or of another model
    +-- RuntimeUnavailableError  the asked-for runtime or device is not there
    +-- ExportError              a model could not be exported to a runtime
    +-- OutputError              results cannot be written
    |   +-- OutboxError          the outbox of a live run cannot be used
    |   |   +-- OutboxFullError  no space is left for it
    |   +-- SinkError            picks cannot be sent to a sink
    +-- WorkerError              a Ray worker or the cluster failed
    |   +-- QuarantinedError     a station killed the workers that picked it
    +-- ResourceError            there is not enough memory, on the machine or on a GPU
    +-- EvaluationError          no trial of a benchmark succeeded

An error carries the exit code that the command line ends with.
"""

from __future__ import annotations

from eqcctpro.codes import printable

__all__ = [
    "DecodeError",
    "EQCCTProError",
    "EvaluationError",
    "ExportError",
    "InputChangedError",
    "InputError",
    "InputTimeoutError",
    "ModelError",
    "OutboxError",
    "OutboxFullError",
    "OutputError",
    "QuarantinedError",
    "ReplaceError",
    "ResourceError",
    "ResumeError",
    "RuntimeUnavailableError",
    "SettingsError",
    "SinkError",
    "UnknownModelError",
    "WeightsError",
    "WeightsNotFoundError",
    "WorkerError",
]


class EQCCTProError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What is wrong, naming the file, station or parameter.
    hint : str, optional
        What to do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else printable(hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default reduction when an error
        # crosses a process boundary.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[EQCCTProError], message: str, hint: str | None) -> EQCCTProError:
    return kind(message, hint=hint)


class SettingsError(EQCCTProError, ValueError):
    """A parameter, command-line option or configuration file is wrong."""

    exit_code = 2


class ResumeError(SettingsError):
    """An unfinished run is in the way, or differs from the one that was asked for."""


class ReplaceError(ResumeError):
    """The results of a finished run would be replaced by those of other settings."""


class InputError(EQCCTProError):
    """An archive, folder, file or waveform cannot be used."""

    exit_code = 3


class DecodeError(InputError):
    """A file cannot be decoded as miniSEED."""


class InputChangedError(InputError):
    """A file changed or vanished while the run that planned with it went on."""


class InputTimeoutError(InputError):
    """A file could not be read within `item_timeout`."""


class ModelError(EQCCTProError):
    """A picker cannot be used."""

    exit_code = 4


class UnknownModelError(ModelError):
    """There is no model of that name."""


class WeightsNotFoundError(ModelError):
    """No weights were found under that name, and none could be fetched."""


class WeightsError(ModelError):
    """Weights are damaged, incomplete, or belong to another model."""


class RuntimeUnavailableError(ModelError):
    """The runtime or device that was asked for is not available here."""


class ExportError(ModelError):
    """A model could not be exported, or its export disagrees with torch."""


class OutputError(EQCCTProError):
    """Results cannot be written."""

    exit_code = 5


class OutboxError(OutputError):
    """The outbox of a live run cannot be used."""


class OutboxFullError(OutboxError):
    """No space is left on the disk for the outbox of a live run."""


class SinkError(OutputError):
    """Picks of a live run cannot be sent to a sink."""


class WorkerError(EQCCTProError):
    """A Ray worker or the Ray cluster failed."""

    exit_code = 6


class QuarantinedError(WorkerError):
    """A station task killed the workers that picked it, and is not tried again by itself."""


class ResourceError(EQCCTProError):
    """There is not enough memory, on the machine or on a GPU."""

    exit_code = 7


class EvaluationError(EQCCTProError):
    """No trial of a benchmark succeeded."""

    exit_code = 10
