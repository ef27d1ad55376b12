"""Scores and comparisons as files and as lines of text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from eqcctpro.picks.writers import atomic_file
from eqcctpro.scoring.compare import Parity
from eqcctpro.scoring.score import Scores

__all__ = ["parity_rows", "score_rows", "write_parity", "write_scores"]


def write_scores(scores: Scores, folder: Path) -> list[Path]:
    """Write ``score.json``, ``stations.csv``, ``curve.csv`` and ``matches.csv``."""
    curve = [
        {"phase": phase, **point} for phase, score in scores.phases.items() for point in score.curve
    ]
    return [
        _json(folder / "score.json", scores.as_dict()),
        _rows(folder / "stations.csv", scores.stations),
        _rows(folder / "curve.csv", curve),
        _table(folder / "matches.csv", scores.matches),
    ]


def write_parity(parity: Parity, folder: Path) -> list[Path]:
    """Write ``parity.json`` and ``stations.csv``."""
    return [
        _json(folder / "parity.json", parity.as_dict()),
        _rows(folder / "stations.csv", parity.stations),
    ]


def score_rows(scores: Scores) -> list[tuple[str, ...]]:
    """A table of text: a header, and a row for each phase."""
    rows: list[tuple[str, ...]] = [
        (
            *("phase", "labels", "picks", "matched", "precision", "recall", "F1"),
            *("false/station-h", "mean", "MAE", "sigma", "area"),
        )
    ]
    for phase, score in scores.phases.items():
        counts, left = score.counts, score.residuals
        rows.append(
            (
                phase,
                *(str(n) for n in (counts.labels, counts.picks, counts.matched)),
                *(_ratio(value) for value in (counts.precision, counts.recall, counts.f1)),
                _ratio(score.false_per_station_hour),
                *(
                    (_ms(left.mean), _ms(left.mae), _ms(left.sigma))
                    if left is not None
                    else ("-", "-", "-")
                ),
                _ratio(score.area),
            )
        )
    return rows


def parity_rows(parity: Parity) -> list[tuple[str, ...]]:
    """A table of text: a header, and a row for each phase."""
    rows: list[tuple[str, ...]] = [
        (
            *("phase", "A", "B", "both", "only A", "only B", "agreement", "same time"),
            *("mean B-A", "largest p99", "prob. diff"),
        )
    ]
    for phase, each in parity.phases.items():
        largest = each.probability.get("largest")
        rows.append(
            (
                phase,
                *(str(n) for n in (each.a, each.b, each.both, each.only_a, each.only_b)),
                _ratio(each.agreement),
                str(each.same_time),
                _ms(each.times.mean) if each.times else "-",
                _ms(each.times.magnitude_percentiles["p99"]) if each.times else "-",
                "-" if largest is None else f"{largest:.2g}",
            )
        )
    return rows


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:+.1f} ms"


def _json(path: Path, content: Mapping[str, Any]) -> Path:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    return path


def _rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def _table(path: Path, table: pa.Table) -> Path:
    with atomic_file(path) as file:
        pyarrow.csv.write_csv(table, file)
    return path
