"""How does a run scale to 1,000 workers, and what limits it?

    python experiments/workbench/scaling_simulation.py RECORDS --model PhaseNet/original

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which a network is made and picked with one and two workers.  Costs are measured here: what the
driver takes to send and take bundles (with workers that do nothing), to plan and to write, and
what a worker takes for a station.  The simulation is first compared with the two real runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.run_costs import measure_costs
from benchmarks.simulation import SimulatedRun, simulate_run
from eqcctpro.evaluation.machine import describe_machine

WORKERS = (1, 2, 4, 16, 64, 256, 500, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--model", default="PhaseNet/original")
    parser.add_argument("--stations", type=int, default=2000, help="of the real runs")
    parser.add_argument("--tasks", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument(
        "--lengths",
        type=float,
        nargs="+",
        default=[1, 60, 1440],
        help="minutes of a station's records; a real run has one minute",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    print(describe_machine())
    runs = measure_costs(
        options.records, options.model, stations=options.stations, rounds=options.rounds
    )
    costs = runs[0].costs
    for name, value in asdict(costs).items():
        print(f"  {name:12} {value:.3g}")
    print("\nreal runs, and the same simulated (seconds that workers pick):")
    for run in runs:
        simulated = simulate_run(run.costs, options.stations, run.workers)
        print(
            f"  {run.workers} workers: {run.pick_s:.2f} s, simulated {simulated.pick_s:.2f} s "
            f"({simulated.pick_s / run.pick_s - 1:+.0%})"
        )
    rows = []
    for minutes in options.lengths:
        work, size = costs.work_task * minutes, costs.task_bytes * minutes
        # Of long records each takes about as long as the others.
        spread = costs.work_spread / minutes**0.5
        longer = replace(costs, work_task=work, task_bytes=size, work_spread=spread)
        for tasks in options.tasks:
            print(f"\n{tasks} stations, {minutes:g} minutes each: {1000 * work:.3g} ms of work")
            print(
                "  workers  total, s  picking, s  efficiency  driver busy  read, MB/s  most lost to"
            )
            for workers in options.workers:
                simulated = simulate_run(longer, tasks, workers)
                print(_line(simulated))
                rows.append({"work_task": longer.work_task, **asdict(simulated)})
    if options.json:
        about = {"machine": describe_machine(), "costs": asdict(costs)}
        measured = [asdict(run) for run in runs]
        options.json.write_text(json.dumps({**about, "real": measured, "rows": rows}, indent=1))


def _line(run: SimulatedRun) -> str:
    return (
        f"  {run.workers:7}  {run.total_s:8.1f}  {run.pick_s:10.1f}  {run.efficiency:10.0%}  "
        f"{run.driver_busy:11.0%}  {run.read_mb_s:10.0f}  {run.bottleneck}"
    )


if __name__ == "__main__":
    main()
