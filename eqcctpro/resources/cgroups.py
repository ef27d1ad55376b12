"""Limits that control groups set for this process: cores, memory, and memory left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CGROUP_ROOT", "OWN_GROUPS", "GroupMemory", "cgroup_cores", "cgroup_memory"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

#: Version 1 says "no limit" with a number near 2**63.
_NO_LIMIT = 2**60


@dataclass(frozen=True)
class GroupMemory:
    """The tightest memory limit of the groups that a process is in.

    Attributes
    ----------
    limit : int
        Bytes that the group may use.
    available : int
        Bytes of it that are left; file cache that the kernel can drop counts as left.
    """

    limit: int
    available: int


def cgroup_cores(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> float | None:
    """Cores that the control groups of this process grant, or None without a limit.

    Parameters
    ----------
    root : Path
        Where control groups are mounted; versions 1 and 2 are understood.
    own : Path
        Says which groups this process is in.
    """
    limits = []
    for group in _groups(root, own, "cpu"):
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        quota = quota or _read(group / "cpu.cfs_quota_us") or ""
        period = period or _read(group / "cpu.cfs_period_us") or ""
        # "max" and -1 mean no limit.
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def cgroup_memory(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> GroupMemory | None:
    """Memory that the control groups of this process grant, or None without a limit.

    The group with the least left and the one with the lowest limit may differ; both count.
    Parameters are those of :func:`cgroup_cores`.
    """
    limits, left = [], []
    for group in _groups(root, own, "memory"):
        limit = _number(group, "memory.max", "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group, "memory.current", "memory.usage_in_bytes") or 0
        limits.append(limit)
        left.append(max(0, limit - max(0, used - _droppable(group))))
    return GroupMemory(min(limits), min(left)) if limits else None


def _number(group: Path, *names: str) -> int | None:
    for name in names:
        text = _read(group / name)
        if text is not None:
            return int(text) if text.isdigit() else None
    return None


def _droppable(group: Path) -> int:
    """Bytes of file cache that nobody used lately."""
    fields = dict(
        line.split(maxsplit=1) for line in (_read(group / "memory.stat") or "").splitlines()
    )
    # Version 1 counts a group's children under "total_"; version 2 always does.
    text = fields.get("total_inactive_file") or fields.get("inactive_file") or "0"
    return int(text) if text.isdigit() else 0


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, inner ones first, with their parents."""
    for line in (_read(own) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2: one tree for everything
            base = root
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        inner = base / path.lstrip("/")
        # In a container the path may be the host's and not exist; its root always does.
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(base))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
