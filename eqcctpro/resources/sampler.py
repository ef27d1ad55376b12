"""Peak memory of a process and its children while work is going on."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

__all__ = ["MemorySampler", "tree_pss_mb"]

MB = 2**20


def tree_pss_mb(pid: int | None = None) -> float:
    """Proportional set size of a process and all its descendants, in MB of 2**20 bytes.

    Pages that processes share are counted once; where the system has no PSS
    (other than Linux), resident memory is summed instead.
    """
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0.0
    for process in processes:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", None) or info.rss
        except psutil.Error:
            continue  # it ended meanwhile
    return total / MB


class MemorySampler:
    """Samples the memory of a process tree in a thread; a context manager.

    Parameters
    ----------
    pid : int, optional
        Root of the tree; this process by default.
    interval_s : float
        Seconds between samples.

    Attributes
    ----------
    peak_mb : float
        Highest proportional set size seen, in MB of 2**20 bytes.
    """

    def __init__(self, pid: int | None = None, interval_s: float = 0.05) -> None:
        self.peak_mb = 0.0
        self._pid = pid
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, tree_pss_mb(self._pid))

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.peak_mb = max(self.peak_mb, tree_pss_mb(self._pid))
