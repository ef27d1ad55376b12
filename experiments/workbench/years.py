"""Does memory grow with the years of an archive, and when do the first picks come?

    python experiments/workbench/years.py --days 365 3650 --stations 100

An SDS archive of sparse day files of one component is made for each number of days, or found in
`--folder`, and picked by the command line.  One station in `--every` has 40 s a day; the others
have less than a window, so that what is measured is everything but the network.  Printed are the
highest memory of the process, the time until the first picks are on the disk, the size of the
summary, and the number of station tasks a second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.memory import peak_rss_mb
from benchmarks.sparse_archive import write_sparse_archive
from eqcctpro.child import module_command
from eqcctpro.evaluation.machine import describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stations", type=int, default=100)
    parser.add_argument("--days", type=int, nargs="+", default=[365, 3650])
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--model", default="PhaseNet/original")
    parser.add_argument("--folder", type=Path, help="keep the archives here, or find them here")
    parser.add_argument("--option", action="append", default=[], help="of eqcctpro pick")
    options = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        for days in options.days:
            archive = (options.folder or Path(scratch)) / f"{options.stations}x{days}"
            if not archive.exists():
                began = time.perf_counter()
                files = write_sparse_archive(
                    archive, stations=options.stations, days=days, every=options.every
                )
                print(f"{files} files written in {time.perf_counter() - began:.0f} s", flush=True)
            output = Path(scratch) / f"picks{days}"
            print(json.dumps(watch(archive, output, options.model, options.option)), flush=True)


def watch(archive: Path, output: Path, model: str, options: list[str]) -> dict[str, float]:
    """Pick an archive, and tell memory, times and sizes."""
    command = module_command("eqcctpro", "pick", str(archive), "-o", str(output))
    began = time.perf_counter()
    run = psutil.Popen([*command, "--model", model, "-q", *options])
    first, peak = 0.0, 0.0
    while run.poll() is None:
        if not first and any(output.glob("picks.parquet/*.parquet")):
            first = time.perf_counter() - began
        peak = max(peak, peak_rss_mb(run))
        time.sleep(0.02 if not first else 0.25)
    seconds = time.perf_counter() - began
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {run.returncode}")
    summary = json.loads((output / "summary.json").read_text())
    tasks = sum(summary["tasks"].values())
    return {
        "station_tasks": tasks,
        "picks": summary["picks"]["total"],
        "partitions": summary.get("partitions", {}).get("number", 0),
        "peak_rss_mb": round(peak, 1),
        "first_picks_s": round(first, 2),
        "seconds": round(seconds, 1),
        "per_second": round(tasks / seconds, 1),
        "summary_kb": round((output / "summary.json").stat().st_size / 1000, 1),
        "csv_mb": round((output / "picks.csv").stat().st_size / 1e6, 1),
    }


if __name__ == "__main__":
    main()
