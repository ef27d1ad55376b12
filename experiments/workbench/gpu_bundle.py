"""Pack what a machine without our packages needs to run gpu_check.py.

    python experiments/workbench/gpu_bundle.py OUT --wheels DIR --weights CACHE [--models A/b,C/d]

Writes part-1.zip, part-2.zip ... of less than --limit MB each.  There, unpack all of them into one
folder and run  python run_gpu_check.py --device cuda --json gpu.json

DIR holds wheels for that machine's Python, of what the checks import beside torch and numpy:

    pip download --only-binary :all: --python-version 3.12 --no-deps -d DIR \\
        annotated-types bottleneck certifi charset-normalizer contourpy cycler decorator filelock \\
        fonttools greenlet h5py idna kiwisolver lxml matplotlib nest-asyncio nvidia-ml-py obspy \\
        orjson packaging pandas pillow psutil pyarrow pydantic pydantic-core pymseed pyparsing \\
        python-dateutil pytz requests scipy seisbench six sqlalchemy tqdm typing-extensions \\
        typing-inspection tzdata urllib3

Without ray, the check of workers that share a GPU is left out, and says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu_bundle import RUN, TooLargeError, build_bundle

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--wheels", type=Path, help="a folder")
    parser.add_argument("--weights", type=Path, help="SeisBench's cache")
    parser.add_argument("--models", default="", help="separated by commas; all by default")
    parser.add_argument("--records", type=Path, help="an archive")
    parser.add_argument("--limit", type=float, default=64.0, help="MB of a part")
    given = parser.parse_args()
    for name in ("wheels", "weights", "records"):
        place = getattr(given, name)
        if place is not None and not place.is_dir():
            parser.error(f"--{name}: {place} is not a folder")
    try:
        parts = build_bundle(
            ROOT,
            given.output,
            wheels=sorted(given.wheels.glob("*.whl")) if given.wheels else (),
            weights=given.weights,
            models=[name for name in given.models.split(",") if name],
            records=given.records,
            limit_mb=given.limit,
        )
    except TooLargeError as error:
        parser.error(str(error))
    for part in parts:
        print(f"{part}  {part.stat().st_size / 2**20:.1f} MB")
    print(f"unpack them into one folder there, and run python {RUN} --device cuda --json gpu.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
