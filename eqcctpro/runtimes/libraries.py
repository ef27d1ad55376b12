"""Libraries of packages that take long to import, loaded without Python's lock."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["load_libraries"]

# Under the package's folder, in the order in which the package itself loads them; the first is
# for whatever is loaded later, too.
_LIBRARIES = {
    "torch": ("lib/libtorch_global_deps.so", "lib/libtorch_cpu.so", "lib/libtorch_cuda.so"),
    "tensorflow": ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"),
}


def load_libraries(package: str) -> None:
    """Load what is large of a package that is about to be imported.

    Python's import holds its lock while the system reads hundreds of megabytes and links them,
    and no other thread runs.  What cannot be loaded here is left to the import.

    Parameters
    ----------
    package : {"torch", "tensorflow"}
    """
    spec = None if package in sys.modules or sys.platform != "linux" else find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return
    # Called as any function of a library, without the lock, unlike `ctypes.CDLL(path)`.
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    folder, scope = Path(spec.submodule_search_locations[0]), os.RTLD_GLOBAL
    for name in _LIBRARIES[package]:
        if (folder / name).is_file():
            load(os.fsencode(folder / name), os.RTLD_NOW | scope)
        scope = os.RTLD_LOCAL
