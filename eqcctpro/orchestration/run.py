"""A picking run from settings to results."""

from __future__ import annotations

from eqcctpro.config import PickConfig
from eqcctpro.orchestration.result import RunResult
from eqcctpro.orchestration.session import PickSession

__all__ = ["run_picking"]


def run_picking(config: PickConfig, *, quiet: bool = True, keep_going: bool = True) -> RunResult:
    """Pick everything that the settings describe, and write the results.

    Parameters
    ----------
    config : PickConfig
    quiet : bool
        Show no progress.
    keep_going : bool
        Pick the other stations when one fails; otherwise the first failure ends the
        run with its error.

    Raises
    ------
    ReplaceError
        The output folder holds the results of a finished run with other settings;
        ``resume="never"`` replaces them.
    EQCCTProError
        The run cannot start, a worker cannot be kept alive, or results cannot be written.
        A station that fails does not raise: it is in the summary.
    """
    with PickSession(config) as session:
        return session.run(quiet=quiet, keep_going=keep_going, last=True)
