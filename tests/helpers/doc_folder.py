"""What the pages of the documentation take for granted: a network, labels, tables of trials."""

from __future__ import annotations

import re
from pathlib import Path

from trial_tables import ripper, row, write

from eqcctpro.synthetic.dataset import Synthesis, synthesize

STATIONS = ("PB01", "PB02", "PB03", "PB04", "PB05", "PB06", "PB35")


def make_network(folder: Path) -> None:
    """A made-up data set of four minutes, with stations that have names of real ones."""
    settings = Synthesis(
        stations=len(STATIONS), duration_s=240, start="2024-12-15T12:00:00", seed=3, radius_km=30
    )
    synthesize(folder, settings)
    for made, name in zip(settings.codes, STATIONS, strict=True):
        # Fixed header of miniSEED 2: station in five letters, location, channel, network.
        header = re.compile(made.encode() + rb"(.{5})XX", re.DOTALL)
        for path in sorted(folder.glob(f"waveforms/*/{made}/*")):
            patched = header.sub(name.ljust(5).encode() + rb"\1TX", path.read_bytes())
            path.write_bytes(patched)
            path.rename(path.with_name(path.name.replace(f"XX.{made}", f"TX.{name}")))
        for path in folder.glob(f"waveforms/*/{made}"):
            path.rename(path.with_name(name))
        for path in (folder / "arrivals.csv", folder / "stations.xml", folder / "stations.csv"):
            text = path.read_text(encoding="utf-8").replace(made, name)
            path.write_text(re.sub(r"\bXX\b", "TX", text), encoding="utf-8")


def write_sds(made: Path, folder: Path) -> None:
    """The waveforms of `made` as day files in SeisComP's structure."""
    for path in sorted(made.glob("waveforms/*/*/*.mseed")):
        network, station, location, channel = path.name.split("__")[0].split(".")
        day = folder / "2024" / network / station / f"{channel}.D"
        day.mkdir(parents=True, exist_ok=True)
        name = f"{network}.{station}.{location}.{channel}.D.2024.350"
        (day / name).write_bytes(path.read_bytes())


def write_trials(folder: Path) -> None:
    """Tables as EQCCTPro writes them: EQCCT on 8 CPUs, with actors and with Ripper tasks."""
    for mode, trial, factor in (("modelactor", row, 1.0), ("ripper", ripper, 2.5)):
        rows = [
            trial(stations, workers, factor * stations * (0.2 + 0.8 / workers))
            for stations in (50, 100, 200)
            for workers in (1, 2, 4, 8)
        ]
        write(folder / f"eval_cpu_eqcct_{mode}" / "cpu_test_results.csv", rows)
