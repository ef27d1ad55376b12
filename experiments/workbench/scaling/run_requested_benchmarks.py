"""How do SeisBench's and rapid-seis's ways to pick grow with the number of stations?

    python experiments/workbench/scaling/run_requested_benchmarks.py RECORDS OUTPUT --model MODEL

RECORDS is an archive in EQCCTPro's layout with three-component records of more than 75 s, of
which networks are made.  The raw serial way (`seisbench-classify-stations`), the same with the
model loaded for every station, and the merged ways are measured by default; `--baseline` names
others, `--ours` adds our modes.  All take turns.  OUTPUT gets scaling.csv, with the columns of
`eqcctpro evaluate`, so that `eqcctpro analyze` and `plot` read it, and scaling.jsonl with every
repeat; both are added to, and what they hold is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import peer_contenders
from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.evaluation.canonical import trial_row
from eqcctpro.evaluation.grid import TrialSpec
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.sidebyside import Contender, Measurement, compare
from eqcctpro.evaluation.station_sets import StationSet, StationSets
from eqcctpro.evaluation.subject import Workload
from eqcctpro.evaluation.trial import TrialResult
from eqcctpro.evaluation.trial_store import TrialStore
from eqcctpro.orchestration.outputs import package_versions
from eqcctpro.resources.hardware import available_cores
from eqcctpro.synthetic.tiling import tile_network

STATIONS = (1, 50, 100, 200, 228)
MODES = ("local", "modelactor", "ripper")


def main(arguments: Sequence[str] | None = None) -> None:
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
    options = parser.parse_args(arguments)
    store = TrialStore(options.output, "cpu" if options.device == "cpu" else "gpu", name="scaling")
    for model in options.model:
        for stations in options.stations or STATIONS:
            print(f"{model}, {stations} stations", file=sys.stderr, flush=True)
            measure(options, store, model, stations)


def measure(options: argparse.Namespace, store: TrialStore, model: str, stations: int) -> None:
    """Measure what is not in the store yet on one network, and keep it."""
    environment = {"machine": describe_machine(), "versions": package_versions()}
    names = options.baseline or ["seisbench-*"]
    names += MODES if options.ours else ()
    with tempfile.TemporaryDirectory() as scratch:
        network = tile_network(options.records, Path(scratch) / "net", stations=stations)
        chosen = StationSets(
            (network,),
            make_plan(InputSettings.of(PickConfig(input=network, output=Path(scratch)))),
            Path(scratch) / "sets",
            seed=0,
        ).choose(stations)
        contenders = peer_contenders(
            Workload((network,), (), model),
            threads=options.threads,
            device=options.device,
            cold_repeats=options.repeats,
            only=names,
        )
        specs = {one.name: spec_of(one, chosen, options, model, environment) for one in contenders}
        done = {row["Configuration ID"] for row in store.rows() if row["Trial Success"] == "1"}
        results = compare(
            [one for one in contenders if specs[one.name].configuration_id not in done],
            Path(scratch) / "out",
            repeats=options.repeats,
        )
    for one in results:
        result = result_of(one, specs[one.contender.name])
        store.append(trial_row(result, environment, seed=0), result.lines())
        speed = "not measured" if one.typical is None else f"{one.median:8.3f} s"
        name = one.contender.name
        print(f"{model:34s} {stations:5d} {name:34s} {speed}  {one.failure}", flush=True)


def spec_of(
    contender: Contender,
    chosen: StationSet,
    options: argparse.Namespace,
    model: str,
    environment: dict[str, Any],
) -> TrialSpec:
    """What a contender is among the trials of a sweep: one of our modes, or a baseline."""
    mode = contender.name if contender.name in MODES else "local"
    config = PickConfig(
        input=chosen.folder,
        output=Path("scaling"),
        model=model,
        mode=mode,
        device=options.device,
        cpu_ids=tuple(available_cores()),
        threads=options.threads if mode == "local" else None,
    )
    cell = [model, list(chosen.stations), str(options.records.resolve())]
    everything = [*cell, contender.name, options.threads, options.device, environment]
    baseline = "" if contender.name in MODES else contender.name
    return TrialSpec(config, chosen, baseline, digest(everything), digest(cell))


def digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def result_of(one: Measurement, spec: TrialSpec) -> TrialResult:
    """A measurement as the result of a trial."""
    facts = dict(one.facts)
    if one.contender.temperature == "cold":
        facts["notes"] = "; ".join(filter(None, ("cold: each run loads all", facts.get("notes"))))
    return TrialResult(
        spec,
        facts,
        repeats=one.outcomes,
        total_s=one.prepare_s + sum(one.seconds),
        prepare_s=one.prepare_s,
        use=one.use,
        error=one.failure,
    )


if __name__ == "__main__":
    main()
