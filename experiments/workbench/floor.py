"""What can no pipeline beat on this machine: decoding the same bytes, and the bare network?

    python experiments/workbench/floor.py RECORDS --stations 200 --model PhaseNet/original

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which a network is made; with `--as-is` it is taken as it is.  Printed are times, arithmetic
(convolutions and matrix products, counted by torch while the network runs; a multiplication and
an addition are two) and the share of what the same cores reach on a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.floor import measure_floor
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.subject import Workload
from eqcctpro.synthetic.tiling import tile_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--as-is", action="store_true", help="take RECORDS as they are")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-most", type=int, help="windows that are run, times are scaled")
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
            floor = measure_floor(
                Workload((network,), (), model),
                threads=options.threads,
                device=options.device,
                batch_size=options.batch,
                rounds=options.rounds,
                at_most=options.at_most,
            )
            print(f"\n{model}", *floor.lines(), sep="\n", flush=True)
            rows.append({"model": model, **floor.as_dict()})
    if options.json:
        about = {"machine": machine, "threads": options.threads, "device": options.device}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
