"""Summary of a run in partitions, added up from those of its partitions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from eqcctpro.archive.plan import Plan
from eqcctpro.orchestration.outputs import MOST_LISTED, MOST_REASONS, OTHERS, RunTables, summarise
from eqcctpro.orchestration.task_records import TaskRecords

__all__ = ["add_summaries", "summarise_partition"]

# Entries that are listed of a partition, of each status.
MOST_OF_A_PARTITION = 50
# Bytes of JSON that the lists of the whole run may take together.
LISTS_BYTES = 200_000

_LISTS = ("empty", "failed", "files_failed", "files_ignored", "notes")
_LEFT_OUT = ("versions", "machine")


def summarise_partition(plan: Plan, records: TaskRecords, tables: RunTables) -> dict[str, Any]:
    """Content of ``summary.json`` for one partition alone, with short lists."""
    summary = summarise(plan, records, tables, {})
    for name in _LISTS:
        summary[name] = summary[name][:MOST_OF_A_PARTITION]
    summary["plan"]["files"] -= plan.guests
    return {name: value for name, value in summary.items() if name not in _LEFT_OUT}


def add_summaries(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum of the summaries of partitions.

    Lists hold the first entries of all partitions, as many as fit; tasks.parquet has all.
    """
    total: dict[str, Any] = {}
    room = LISTS_BYTES
    for part in parts:
        if not total:
            total = {name: _empty(value) for name, value in part.items()}
        for name, value in part.items():
            if name in _LISTS:
                for item in value:
                    size = len(json.dumps(item))
                    if len(total[name]) < MOST_LISTED and size <= room:
                        total[name].append(item)
                        room -= size
            elif name == "balanced":
                total[name] = total[name] and value
            else:
                total[name] = _added(total[name], value)
    if "station_hours" in total:
        total["station_hours"] = round(total["station_hours"], 6)
    for name, counts in total.get("reasons", {}).items():
        total["reasons"][name] = _most_frequent(counts)
    return total


def _empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {}
    return [] if isinstance(value, list) else value if isinstance(value, (bool, str)) else 0


def _added(total: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _added(total.get(name, 0 if not isinstance(value.get(name), Mapping) else {}), v)
            if (v := value.get(name)) is not None
            else total[name]
            for name in (*total, *(name for name in value if name not in total))
        }
    return value if value is None or isinstance(value, str) else (total or 0) + value


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of the most frequent reasons; rare ones are added up."""
    ordered = Counter({name: count for name, count in counts.items() if name != OTHERS})
    most = ordered.most_common()
    shown = dict(most[:MOST_REASONS])
    if more := counts.get(OTHERS, 0) + sum(count for _, count in most[MOST_REASONS:]):
        shown[OTHERS] = more
    return shown
