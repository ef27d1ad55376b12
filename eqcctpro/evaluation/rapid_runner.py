"""Runs rapid-seis in its own interpreter; knows nothing of this package.

    python rapid_runner.py REQUEST.json          one call, then the end
    python rapid_runner.py --serve               requests on standard input, one a line

A request is ``{"function", "arguments", "result"}``; the answer is written to the path
``result``, and with ``--serve`` a line ``{"seconds"}`` or ``{"error"}`` follows on standard
output, where nothing else is written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any


def tolerate_missing_driver() -> bool:
    """Let rapid-seis start where there is no NVIDIA driver; returns whether there is one.

    Its `RunEQCCTPro` asks NVML for the number of GPUs even for a run on the CPU, and
    passes on the error if NVML has no driver to ask.  Here NVML then answers that there
    are no GPUs, which is the truth.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pynvml.nvmlInit = lambda *_: None
        pynvml.nvmlShutdown = lambda: None
        pynvml.nvmlDeviceGetCount = lambda: 0
        return False
    pynvml.nvmlShutdown()
    return True


def call(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call one public function of rapid-seis; returns what is cheap to tell of its result."""
    import rapid

    if function == "classify":
        found = rapid.classify(**arguments)
        named = Counter(pick.phase for result in found for pick in result.picks)
        return {"picks": dict(named)}
    if function == "slipstream":
        found = rapid.slipstream(**arguments)
        stations = found["picks"].values()
        picks = {p.upper(): sum(len(one[p]) for one in stations) for p in ("p", "s")}
        return {"picks": picks, "stations": found["summary"]["n_stations"]}
    if function == "pick":
        rapid.pick(**arguments)
        return {}
    raise ValueError(f"no such function: {function}")


def facts() -> dict[str, str]:
    """Releases of what runs here."""
    return {name: version(name) for name in ("rapid-seis", "seisbench", "torch", "obspy")}


def answer(request: dict[str, Any]) -> None:
    """Carry out a request, and write its result."""
    tolerate_missing_driver()
    function = request["function"]
    told = facts() if function == "facts" else call(function, request["arguments"])
    Path(request["result"]).write_text(json.dumps(told), encoding="utf-8")


def serve() -> None:
    """Answer requests until standard input ends."""
    # What rapid-seis and Ray print goes to standard error.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        started = time.perf_counter()
        try:
            answer(json.loads(line))
            reply: dict[str, Any] = {"seconds": time.perf_counter() - started}
        except SystemExit as error:  # rapid-seis leaves the process when it gives up
            reply = {"error": f"rapid-seis left with {error.code!r}"}
        except Exception as error:  # told to the process that asked, which raises or counts it
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        answer(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
