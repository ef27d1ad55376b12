"""How do SeisBench's and rapid-seis's ways to pick grow with the number of stations?

    python experiments/workbench/scaling/run_requested_benchmarks.py RECORDS OUTPUT

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which networks are made.  The raw serial way (`seisbench-classify-stations`), the same with the
model loaded for every station, and the merged ways are measured by default; `--baseline` names
others, `--ours` adds our modes.  All take turns.  OUTPUT gets scaling.jsonl with every repeat
and scaling.csv with the medians; both are added to, and what they hold is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.peers import peer_contenders
from eqcctpro.evaluation.sidebyside import Contender, Measurement, compare
from eqcctpro.evaluation.subject import STAGES, Workload
from eqcctpro.synthetic.tiling import tile_network

STATIONS = (1, 50, 100, 200, 228)
COLUMNS = (
    *("model", "stations", "name", "temperature", "threads", "batch_size", "device", "repeats"),
    *("median_s", "min_s", "max_s", "stations_per_s", "peak_mb"),
    *(f"{stage}_s" for stage in STAGES),
    *("done", "empty", "failed", "P", "S", "failure", "machine"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--stations", type=int, action="append", help=f"default {STATIONS}")
    parser.add_argument("--baseline", action="append", help="pattern; default seisbench-*")
    parser.add_argument("--ours", action="store_true", help="our modes too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    names = options.baseline or ["seisbench-*"]
    names += ["local", "modelactor", "ripper"] if options.ours else []
    options.output.mkdir(parents=True, exist_ok=True)
    known = measured_before(options.output / "scaling.jsonl")
    for model in options.model:
        for stations in options.stations or STATIONS:
            with tempfile.TemporaryDirectory() as scratch:
                network = tile_network(options.records, Path(scratch) / "net", stations=stations)
                contenders: list[Contender] = [
                    one
                    for one in peer_contenders(
                        Workload((network,), (), model),
                        threads=options.threads,
                        device=options.device,
                        cold_repeats=options.repeats,
                        only=names,
                    )
                    if (model, stations, one.name) not in known
                ]
                print(f"{model}, {stations} stations", file=sys.stderr, flush=True)
                results = compare(contenders, Path(scratch) / "out", repeats=options.repeats)
            for one in results:
                write(options.output, one, model, stations)


def measured_before(path: Path) -> set[tuple[str, int, str]]:
    """What a file of results holds, without what failed."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["model"], row["stations"], row["name"]) for row in rows if not row["failure"]}


def write(folder: Path, one: Measurement, model: str, stations: int) -> None:
    about = {"model": model, "stations": stations, "machine": describe_machine()}
    with (folder / "scaling.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**about, **one.row()}) + "\n")
    row = about | csv_row(one, stations)
    path = folder / "scaling.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)
    speed = "not measured" if one.typical is None else f"{one.median:8.3f} s"
    print(f"{model:34s} {stations:5d} {one.contender.name:34s} {speed}  {one.failure}", flush=True)


def csv_row(one: Measurement, stations: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.contender.name,
        "temperature": one.contender.temperature,
        **{key: one.facts.get(key, "") for key in ("threads", "batch_size", "device")},
        "repeats": len(one.outcomes),
        "peak_mb": round(one.peak_mb, 1),
        "failure": one.failure,
    }
    if one.typical is not None:
        row |= {
            "median_s": one.median,
            "min_s": min(one.seconds),
            "max_s": max(one.seconds),
            "stations_per_s": stations / one.median,
            **{f"{stage}_s": seconds for stage, seconds in one.typical.stages.items()},
            **{key: getattr(one.typical, key) for key in ("done", "empty", "failed")},
            **{phase: one.typical.picks.get(phase, 0) for phase in ("P", "S")},
        }
    return row


if __name__ == "__main__":
    main()
