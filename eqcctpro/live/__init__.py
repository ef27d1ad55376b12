"""Real-time data: records from SeedLink servers, picks of them, and a server to rehearse with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqcctpro.live.messages import PickMessage
    from eqcctpro.live.run import live_picks, run_live
    from eqcctpro.live.settings import LiveConfig

__all__ = ["LiveConfig", "PickMessage", "live_picks", "run_live"]

_WHERE = {
    "LiveConfig": "settings",
    "PickMessage": "messages",
    "live_picks": "run",
    "run_live": "run",
}


def __getattr__(name: str) -> Any:
    """A public name, whose module is imported when it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
