"""Earlier place of `eqcctpro.report.run_report`."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["write_report"]  # noqa: F822 (by __getattr__)


def __getattr__(name: str) -> Any:
    """Take a name from where it is now."""
    from eqcctpro.report import run_report

    if name not in run_report.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"eqcctpro.analysis.report.{name} is eqcctpro.report.run_report.{name} now",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(run_report, name)
