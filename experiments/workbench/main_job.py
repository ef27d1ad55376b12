"""How much faster is the main job than SeisBench on the same network, and in what memory?

Makes a network of real records, then measures warm runs from miniSEED files to a CSV of picks:

    python experiments/workbench/main_job.py RECORDS --stations 200 --model PhaseNet/original

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s.
`compare_peers.py` has all the others too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.peers import as_record, peer_contenders
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.sidebyside import compare
from eqcctpro.evaluation.subject import Workload
from eqcctpro.synthetic.tiling import tile_network

PEER = "seisbench-classify-merged"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip-seisbench", action="store_true")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    names = ["local", "modelactor", *([] if options.skip_seisbench else [PEER])]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        network = tile_network(
            options.records, Path(scratch) / "network", stations=options.stations
        )
        for model in options.model:
            workload = Workload((network,), (), model)
            contenders = peer_contenders(workload, workers=options.workers, only=names)
            measured = compare(contenders, Path(scratch) / "out", repeats=options.repeats)
            slowest = measured[-1].median
            for m in measured:
                if m.failure or m.typical is None:
                    raise SystemExit(f"{model} {m.contender.name}: {m.failure}")
                detail = "{workers} x {runtime}, batch {batch_size}, {threads} threads: {comments}"
                print(
                    f"{model:34s} {m.contender.name:26s} {m.median:7.2f} s "
                    f"({min(m.seconds):.2f}-{max(m.seconds):.2f})  {slowest / m.median:6.2f} x  "
                    f"{m.peak_mb:6.0f} MB  {sum(m.typical.picks.values())} picks  "
                    + detail.format(**m.facts)
                )
                rows.append({"model": model, **as_record(m)})
    if options.json:
        machine = {"machine": describe_machine(), "stations": options.stations}
        options.json.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
