"""Does memory grow with the number of stations?

    python experiments/workbench/memory_flat.py RECORDS --stations 2000 20000

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which networks of that many stations are made.  Each network is picked by the command line, and
the highest memory of the process that plans and writes and of the largest worker is printed.
Runs alternate between the networks; the most of several rounds counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.memory import RoleMemory, watch_pick
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.synthetic.tiling import tile_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--stations", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--mode", nargs="+", default=["local", "modelactor"])
    parser.add_argument("--model", default="PhaseNet/original")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the networks here, or find them here")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--option", action="append", default=[], help="of eqcctpro pick")
    options = parser.parse_args()
    print(describe_machine())
    highest: dict[tuple[str, str, int], RoleMemory] = {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        networks = {}
        for stations in options.stations:
            path = (options.folder or Path(scratch)) / f"network{stations}"
            networks[stations] = path
            if not path.exists():
                tile_network(options.records, path, stations=stations)
        for _ in range(options.rounds):
            for mode in options.mode:
                extra = [*options.option, *(["--workers", "2"] if mode != "local" else [])]
                for stations, path in networks.items():
                    seen = watch_pick(
                        path, stations=stations, mode=mode, model=options.model, options=extra
                    )
                    rows.append(asdict(seen))
                    for role, memory in seen.roles.items():
                        most = highest.setdefault((mode, role, stations), RoleMemory())
                        most.see(memory.rss_mb, memory.pss_mb, memory.own_mb)
                        print(
                            f"{mode:10} {role:7} {stations:6} stations: "
                            f"RSS {memory.rss_mb:6.1f} MB, PSS {memory.pss_mb:6.1f} MB, "
                            f"own {memory.own_mb:6.1f} MB",
                            flush=True,
                        )
    fewest, most_stations = min(options.stations), max(options.stations)
    for (mode, role, stations), memory in highest.items():
        if stations == most_stations != fewest:
            before = highest[mode, role, fewest]
            print(
                f"{mode:10} {role:7} {fewest} to {stations}: RSS x "
                f"{memory.rss_mb / before.rss_mb:.3f}, PSS x {memory.pss_mb / before.pss_mb:.3f}, "
                f"own x {memory.own_mb / before.own_mb:.3f}"
            )
    if options.json:
        about = {"machine": describe_machine(), "runs": rows}
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
