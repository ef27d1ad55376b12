"""Exports weights in a process of its own, so that this one can answer others meanwhile.

torch holds Python's lock for seconds while it traces a network.  Run as a module this is the
process that exports.
"""

from __future__ import annotations

import os
import pickle

from eqcctpro.child import ChildDiedError, ChildProcess, Parent
from eqcctpro.errors import EQCCTProError, ModelError
from eqcctpro.models.export import cached_export
from eqcctpro.models.weight_files import WeightFiles

__all__ = ["export_apart"]

#: Seconds after which a process that exports is given up.
_TIMEOUT_S = 800.0

# Those that answer meanwhile go first.
_NICE = 5


def export_apart(files: WeightFiles) -> None:
    """Have weights in the cache of exports; see :func:`eqcctpro.models.export.cached_export`.

    Raises
    ------
    ModelError
        As `cached_export`; also where the process ends by itself, or takes too long.
    """
    child = ChildProcess(__name__)
    try:
        child.send(pickle.dumps(files))
        error: EQCCTProError | None = pickle.loads(child.receive(_TIMEOUT_S))
    except TimeoutError as late:
        raise ModelError(f"{files.name} was not exported in {_TIMEOUT_S:g} s") from late
    except ChildDiedError as died:
        raise ModelError(
            f"{files.name} cannot be exported: the process for that ended ({died.message})",
            hint="is there enough memory? eqcctpro models verify compares weights",
        ) from died
    finally:
        child.kill()
    if error is not None:
        raise error


def _main() -> None:
    parent = Parent()
    os.nice(_NICE)
    for message in parent.requests():
        try:
            cached_export(pickle.loads(message))
            parent.reply(pickle.dumps(None))
        except EQCCTProError as error:
            parent.reply(pickle.dumps(error))


if __name__ == "__main__":
    _main()
