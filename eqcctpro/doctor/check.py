"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Status"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
        What was looked at.
    status : {"ok", "warn", "fail"}
        ``"fail"``: a run needs it and it does not work.  ``"warn"``: some runs will not work, or
        not well.
    found : str
        What was found.
    hint : str
        What to do about it; empty when there is nothing to do.
    """

    topic: str
    status: Status
    found: str
    hint: str = ""
