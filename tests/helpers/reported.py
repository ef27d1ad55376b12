"""A finished run with a report."""

from __future__ import annotations

import shutil
from pathlib import Path

from eqcctpro.config import PickConfig
from eqcctpro.orchestration.run import run_picking


def run_with_report(root: Path, network: Path, model: str, stations: str) -> Path:
    """Pick a copy of a network, one file of which is damaged; returns the output folder."""
    archive = Path(shutil.copytree(network, root / "archive"))
    sorted(archive.rglob("*.mseed"))[0].write_bytes(b"not miniSEED" * 50)
    (archive / "stations.txt").write_text(stations)
    config = PickConfig.checked(
        input=archive,
        output=root / "out",
        model=model,
        runtime="torch",
        threads=1,
        report=True,
    )
    result = run_picking(config)
    assert result.paths["report"] == str(root / "out" / "report.html")
    return root / "out"
