"""A live run with a network of numbers alone, as a program that can be killed: SOURCE OUT."""

from __future__ import annotations

import sys
from typing import Any

from live_networks import PlainRuntime, plain_picker, plain_settings

import eqcctpro.live.run as live_run
from eqcctpro.live.settings import LiveConfig


def use_plain_network() -> None:
    """Have runs in this process use it, whatever model they name."""
    picker = plain_picker("avg")
    module: Any = live_run
    module.find_run_weights = lambda *_: None
    module.load_picker = lambda *_: picker
    module.fit_to_model = lambda *given: given[0]
    module.describe = lambda *_: (picker, plain_settings(picker))
    module.open_picker = lambda *_, **__: (picker, PlainRuntime(16))


if __name__ == "__main__":
    use_plain_network()
    live_run.run_live(LiveConfig.checked(sources=sys.argv[1], output=sys.argv[2]))
