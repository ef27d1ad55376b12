"""Work counted in calls of functions, which no other program on the machine changes."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from typing import Any


def calls(function: Callable[..., Any], *arguments: Any, **more: Any) -> int:
    """Calls of functions, also of those in C, that a call leads to."""
    profile = cProfile.Profile()
    profile.runcall(function, *arguments, **more)
    return sum(entry.callcount for entry in profile.getstats())
