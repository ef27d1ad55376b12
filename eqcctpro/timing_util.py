"""EQCCTPro's clock for benchmarks: the names that scripts import from ``eqcctpro.timing_util``."""

from __future__ import annotations

import sys
import time

__all__ = ["cuda_synchronize_best_effort", "monotonic_s"]

#: Seconds of a clock that is not set back, with the highest resolution there is.
monotonic_s = time.perf_counter


def cuda_synchronize_best_effort() -> None:
    """Wait for the work that torch has queued on the current GPU.

    Without torch in this process, or without a GPU, there is nothing to wait for.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
