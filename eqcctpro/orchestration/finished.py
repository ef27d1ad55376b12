"""Protection of a finished run's results from a run with other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.errors import ReplaceError
from eqcctpro.journal.earlier import changed_values
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.times import format_utc, parse_utc

__all__ = ["HINT", "keep_finished"]

HINT = (
    "another output folder keeps them; --fresh (in Python resume='never') discards all that "
    "the earlier run left and picks anew"
)

# Settings that say what is picked; those that say how are in the summary as they applied.
_WHAT = (
    *("input", "layout", "start", "end", "timechunk", "overlap", "stations", "stations_at_most"),
    *("exclude", "channel_priority", "precision", "contradictions"),
)


def keep_finished(
    config: PickConfig,
    weights: WeightFiles,
    picker: Picker,
    settings: TaskSettings,
) -> None:
    """Refuse to replace the results of a finished run with other settings.

    Raises
    ------
    ReplaceError
        There is such a run.
    """
    summary = _finished_run(config.output)
    if summary is not None:
        _require_same_settings(summary, config, weights, picker, settings)


def _finished_run(output: Path) -> dict[str, Any] | None:
    """Summary of the run whose results are in a folder; None if there is no readable one."""
    try:
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(summary, dict) and isinstance(summary.get("settings"), dict)
    return summary if known else None


def _require_same_settings(
    summary: Mapping[str, Any],
    config: PickConfig,
    weights: WeightFiles,
    picker: Picker,
    settings: TaskSettings,
) -> None:
    """Refuse to replace results by those of other settings.

    Only what decides picks counts: the input and how it is cut, the model with its weights,
    thresholds and arguments, with the defaults that applied.  Where and how a run is computed,
    and which files it writes, may change.

    Parameters
    ----------
    summary : mapping
        Of the finished run.

    Raises
    ------
    ReplaceError
        Settings differ; the message names them.
    """
    before, now = summary["settings"], config.absolute().model_dump(mode="json")
    usual = {name: field.default for name, field in PickConfig.model_fields.items()}
    # Settings that the version of that run did not know had their defaults.
    old = {name: _plain(before.get(name, usual[name])) for name in _WHAT}
    new = {name: _plain(now[name]) for name in _WHAT}
    if old["input"] == _plain(config.model_dump(mode="json")["input"]):
        old["input"] = new["input"]  # relative paths, as earlier versions kept them
    for side in (old, new):
        for name in ("start", "end"):  # one time has many spellings
            if side[name] is not None:
                side[name] = format_utc(parse_utc(side[name], name))
    old |= {"model": summary.get("model"), "weights": summary.get("weights", {}).get("sha256")}
    new |= {"model": weights.name, "weights": weights.sha256}
    if "applied" in summary:
        old |= _flat(summary["applied"])
        new |= _flat(settings.applied(picker))
    changes = changed_values(old, new)
    if changes:
        raise ReplaceError(
            f"{config.output} holds the results of a finished run with other settings: "
            f"{'; '.join(changes)}",
            hint=HINT,
        )


def _flat(applied: Mapping[str, Any]) -> dict[str, Any]:
    thresholds = {
        f"{name.lower()}_threshold": value for name, value in applied["thresholds"].items()
    }
    rest = {
        name: _plain(value)
        for name, value in applied.items()
        if name not in {"thresholds", "arguments"}
    }
    return {**thresholds, **{k: _plain(v) for k, v in applied["arguments"].items()}, **rest}


def _plain(value: Any) -> Any:
    """Value as JSON stores it: lists instead of tuples, and one form for equal settings."""
    value = json.loads(json.dumps(value, default=str))
    return value or None if isinstance(value, list) else value
