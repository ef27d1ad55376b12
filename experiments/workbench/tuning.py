"""Is `eqcctpro tune` as good as a full sweep, and how many trials does it save?"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.tuning_check import check_tuning
from eqcctpro.config import PickConfig
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.synthetic.tiling import tile_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, help="archive of real records")
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--mode", default="local,modelactor")
    parser.add_argument("--runtime", default="openvino,onnxruntime,torch")
    parser.add_argument("--batch-size", default="16,32,64,128,256")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        network = tile_network(
            options.records, Path(scratch) / "network", stations=options.stations
        )
        for number, model in enumerate(options.model):
            pick = PickConfig.checked(
                input=network,
                output=Path(scratch) / str(number),
                model=model,
                mode="modelactor",
                cpu_ids=tuple(sorted(os.sched_getaffinity(0))),
            )
            config = EvaluationConfig.checked(
                pick=pick,
                csv_dir=pick.output,
                cpu_counts=(len(pick.cpu_ids or ()),),
                station_counts=(options.stations,),
                concurrency=numbers(options.workers),
                modes=tuple(options.mode.split(",")),
                runtimes=tuple(options.runtime.split(",")),
                batch_sizes=numbers(options.batch_size),
                repeats=options.repeats,
            )
            check = check_tuning(config, report=lambda line: print(line, file=sys.stderr))
            print(f"\nsweep: {check.sweep_trials} trials in {check.sweep_s:.0f} s")
            print(f"  {check.sweep_best}")
            print(f"tuning: {check.tuning_trials} trials in about {check.tuning_s:.0f} s")
            print(f"  {check.tuned}")
            print(f"tuned / sweep's best, measured in turns: {check.ratio:.3f}")


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
