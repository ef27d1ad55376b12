"""The whole examination."""

from __future__ import annotations

from collections.abc import Iterator

from eqcctpro.doctor.check import Check

__all__ = ["examine"]


def examine(*, models: bool = True) -> Iterator[Check]:
    """Look at the machine, the software and the models, one line after the other.

    Parameters
    ----------
    models : bool
        Whether each model is loaded and picks; the first time this takes seconds for each,
        because models are exported then.

    Yields
    ------
    Check
    """
    from eqcctpro.doctor.machine import machine_checks
    from eqcctpro.doctor.models import model_checks
    from eqcctpro.doctor.software import software_checks

    yield from machine_checks()
    yield from software_checks()
    yield from model_checks(pick=models)
