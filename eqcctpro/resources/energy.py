"""Energy used by the processors, where their counters may be read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CpuEnergy"]

#: Linux's interface to the energy counters of Intel and AMD processors (powercap, RAPL).
POWERCAP = Path("/sys/class/powercap")

_MICRO = 1e-6


class CpuEnergy:
    """Counts the energy of all processor packages from its creation on.

    Counters wrap around after some minutes to hours, which is allowed for once.

    Parameters
    ----------
    root : Path
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._packages = [
            folder for folder in sorted(root.glob("*-rapl:*")) if folder.name.count(":") == 1
        ]
        self._before = self._read()

    def restart(self) -> None:
        """Count from now on."""
        self._before = self._read()

    def joules(self) -> float | None:
        """Energy since the start of counting; None where it cannot be read."""
        now = self._read()
        if not now or set(now) != set(self._before):
            return None
        total = 0.0
        for folder, value in now.items():
            used = value - self._before[folder]
            if used < 0:
                used += _number(folder / "max_energy_range_uj") or 0.0
            total += used
        return total * _MICRO

    def _read(self) -> dict[Path, float]:
        values = {folder: _number(folder / "energy_uj") for folder in self._packages}
        return {folder: value for folder, value in values.items() if value is not None}


def _number(path: Path) -> float | None:
    """The number in a file; None if it may not be read, as is usual for users."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
