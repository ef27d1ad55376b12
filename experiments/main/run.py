"""A production run: what `RunEQCCTPro` takes, from the command line.

    python experiments/main/run.py INPUT OUTPUT --model EQTransformer/original --workers 4

INPUT is an archive of time-chunk and station folders; `eqcctpro dataset synthesize data/sample`
makes one, in data/sample/waveforms.  To change what has no option here, change the call below: it
is the Python interface as a script of one's own would use it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eqcctpro import RunEQCCTPro


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, help="archive of time-chunk and station folders")
    parser.add_argument("output", type=Path, help="folder for the results")
    parser.add_argument("--model", default="EQTransformer/original", help="Class/weights")
    parser.add_argument("--p-model", type=Path, help="EQCCT's P network; then --model is EQCCT")
    parser.add_argument("--s-model", type=Path, help="EQCCT's S network")
    parser.add_argument("--workers", type=int, help="stations at once; one for each core")
    parser.add_argument("--gpus", help="such as 0,1, or all; none by default")
    parser.add_argument("--ripper", action="store_true", help="tasks instead of actors")
    parser.add_argument("--stations", help="such as PB35,TX.MB*; all by default")
    parser.add_argument("--start", help="such as '2024-12-15 12:00:00'; with --end")
    parser.add_argument("--end")
    parser.add_argument("--timechunk", type=float, default=1, help="minutes; with --start")
    parser.add_argument("--overlap", type=float, default=0, help="minutes; with --start")
    options = parser.parse_args()
    gpus = options.gpus
    run = RunEQCCTPro(
        input_dir=options.input,
        output_dir=options.output,
        log_filepath=options.output / "eqcctpro.log",
        use_gpu=gpus is not None,
        selected_gpus=None if gpus in (None, "all") else [int(gpu) for gpu in gpus.split(",")],
        number_of_concurrent_station_predictions=options.workers,
        specific_stations=options.stations,
        start_time=options.start,
        end_time=options.end,
        timechunk_dt=options.timechunk,
        waveform_overlap=options.overlap,
        ripper=options.ripper,
        **model_parameters(options),
    )
    result = run.run_eqcctpro(quiet=False)
    print(f"{result.counts['picks']} picks of {result.counts['done']} station tasks")
    print(result.paths["picks_csv"])
    return result.exit_code


def model_parameters(options: argparse.Namespace) -> dict[str, object]:
    """EQCCT by its two files or by name, any other model by SeisBench's names."""
    parent, _, child = options.model.partition("/")
    if options.p_model or options.s_model or parent.upper() == "EQCCT":
        return {
            "model_type": "eqcct",
            "p_model_filepath": options.p_model,
            "s_model_filepath": options.s_model,
        }
    return {
        "model_type": "seisbench",
        "seisbench_parent_model": parent,
        "seisbench_child_model": child,
    }


if __name__ == "__main__":
    raise SystemExit(main())
