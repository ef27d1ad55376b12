"""How fast is everything that can pick a network, on the same network, in one go?

    python experiments/workbench/compare_peers.py RECORDS --stations 200 --model PhaseNet/original

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which a network is made; with `--as-is` it is taken as it is.  Everybody reads miniSEED files
and writes a file of picks.  Warm: the model is loaded, workers are started; of rapid-seis,
imports are done.  Cold: a command in a process of its own.  All take turns; ratios are to our
mode local, warm or cold.  The floor, which decodes and predicts and does nothing else, takes
its turns too, and is measured in its parts at the end.  rapid-seis is left out unless it is
installed, or the environment variable EQCCTPRO_RAPID_PYTHON names an interpreter that has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.floor import measure_floor
from benchmarks.peers import REFERENCES, as_record, peer_contenders, ratio_table
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.sidebyside import compare
from eqcctpro.evaluation.subject import Workload
from eqcctpro.synthetic.tiling import tile_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--as-is", action="store_true", help="take RECORDS as they are")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cold-repeats", type=int, default=3, help="of what loads in each run")
    parser.add_argument("--threads", type=int, help="of each process that is alone")
    parser.add_argument("--workers", type=int, help="of our modes on Ray")
    parser.add_argument("--runtime", help="of our modes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", action="append", default=[], help="pattern of names")
    parser.add_argument("--without", action="append", default=[], help="pattern of names")
    parser.add_argument("--no-floor", action="store_true", help="not in its parts")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    machine = describe_machine()
    print(machine)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        network = options.records
        if not options.as_is:
            network = tile_network(network, Path(scratch) / "network", stations=options.stations)
        for model in options.model:
            print(f"\n{model}", flush=True)
            rows.append(measure(Workload((network,), (), model), Path(scratch) / "out", options))
    if options.json:
        about = {"machine": machine, "stations": None if options.as_is else options.stations}
        options.json.write_text(json.dumps({**about, "models": rows}, indent=1) + "\n")


def measure(workload: Workload, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    measured = compare(
        peer_contenders(
            workload,
            threads=options.threads,
            workers=options.workers,
            runtime=options.runtime,
            device=options.device,
            cold_repeats=options.cold_repeats,
            only=options.only,
            without=options.without,
        ),
        output,
        repeats=options.repeats,
        report=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    print(*ratio_table(measured, REFERENCES), sep="\n", flush=True)
    floor = None
    if not options.no_floor:
        floor = measure_floor(workload, threads=options.threads, device=options.device)
        print(*floor.lines(), sep="\n", flush=True)
    return {
        "model": workload.model,
        "rows": [as_record(one) for one in measured],
        "floor": None if floor is None else floor.as_dict(),
    }


if __name__ == "__main__":
    main()
