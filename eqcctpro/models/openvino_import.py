"""Imports OpenVINO without what it reports of its use.

Whenever it is imported it would fork the process, to tell a server of its maker's over the network.
"""

from __future__ import annotations

import sys
from typing import Any

from eqcctpro.signals_after import signals_after

__all__ = ["import_openvino"]

REPORTS = "openvino_telemetry"


def import_openvino() -> Any:
    """The module ``openvino``.

    Raises
    ------
    ImportError
        It is not installed.
    """
    absent = object()
    known: Any = sys.modules.get(REPORTS, absent)
    # As if it was not installed, which OpenVINO is prepared for.
    sys.modules[REPORTS] = None  # type: ignore[assignment]
    try:
        with signals_after():
            import openvino
    finally:
        if known is absent:
            sys.modules.pop(REPORTS, None)
        else:
            sys.modules[REPORTS] = known
    return openvino
