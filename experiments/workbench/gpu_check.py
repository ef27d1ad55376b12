"""What does a GPU do for us, and is it right?  One JSON file, in ten minutes.

    python experiments/workbench/gpu_check.py --device cuda --json gpu.json

The file is written after each check, so that nothing is lost when time is over.  With
--device cpu the same checks are rehearsed, which needs no GPU; --short makes them small.
The exit code is 0 if all checks ran.  The tables of the documentation are made of the file by
scripts/documentation/gpu_tables.py.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu_check import CHECKS, Options, rehearsal, run_checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--models", help="separated by commas")
    parser.add_argument("--records", type=Path, help="an archive in place of a synthetic one")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", default="", help=f"of {', '.join(CHECKS)}")
    given = parser.parse_args()
    options = Options(device=given.device, records=given.records, minutes=given.minutes)
    if given.models:
        options = replace(options, models=tuple(given.models.split(",")))
    if given.short:
        options = rehearsal(options)
    only = [name for name in given.only.split(",") if name]
    if unknown := set(only) - set(CHECKS):
        parser.error(f"there is no check {', '.join(sorted(unknown))}")
    return 0 if run_checks(options, given.json, only) else 1


if __name__ == "__main__":
    raise SystemExit(main())
