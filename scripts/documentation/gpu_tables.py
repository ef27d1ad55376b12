"""Write the tables of a page from what `experiments/workbench/gpu_check.py` has measured.

    python scripts/documentation/gpu_tables.py gpu.json [docs/performance.md]

They replace what stands between the lines <!-- gpu: begin --> and <!-- gpu: end -->.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def with_gpu_tables(page: str, report: dict[str, Any]) -> str:
    """The page with tables of a report.

    Raises
    ------
    ValueError
        The page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    tables = "\n".join(lines_of(report))
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def lines_of(report: dict[str, Any]) -> Iterator[str]:
    """Lines of all tables; checks that did not run are named with the reason."""
    checks = report["checks"]
    facts = checks.get("facts", {})
    card = facts.get("device", {}).get("card") or report["options"]["device"]
    versions = facts.get("versions", {})
    yield (
        f"Measured on {card}, {facts.get('cores', '?')} cores, torch {versions.get('torch')}, "
        f"CUDA {facts.get('cuda')}, by `experiments/workbench/gpu_check.py`."
    )
    for title, name, columns in _TABLES:
        rows = checks.get(name, {}).get("rows")
        if rows:
            yield from ("", f"**{title}**", "", *_table(columns, rows))
    limits = {k: v for k, v in checks.get("ceilings", {}).items() if k.endswith(("_s", "flops"))}
    if limits:
        named = [{"what": name, "value": value} for name, value in limits.items()]
        columns = (("", "what"), ("", "value"))
        yield from ("", "**Ceilings of the card**", "", *_table(columns, named))
    gaps = {name: check["reason"] for name, check in checks.items() if check["state"] != "ran"}
    for name, reason in gaps.items():
        yield from ("", f"Not measured: {name} ({reason}).")


_TABLES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Picks of the card and of the CPU",
        "parity",
        (
            ("model", "model"),
            ("precision", "precision"),
            ("both", "both"),
            ("only CPU", "only_first"),
            ("only card", "only_second"),
            ("same sample", "same_sample"),
            ("largest difference", "largest_difference"),
        ),
    ),
    (
        "Seconds by the size of the network, a minute of each station",
        "stages",
        (
            ("model", "model"),
            ("stations", "stations"),
            ("planning", "plan_s"),
            ("all of picking", "run_s"),
            ("decoding", "decode_s"),
            ("preparing", "prepare_s"),
            ("network", "infer_s"),
            ("picks", "pick_s"),
            ("card busy", "busy_share"),
        ),
    ),
    (
        "Microseconds a window",
        "window_times",
        (
            ("model", "model"),
            ("network", "kind"),
            ("precision", "precision"),
            ("batch", "batch"),
            ("us", "us"),
        ),
    ),
    (
        "Beside `annotate` of SeisBench on the same card, seconds",
        "annotate",
        (
            ("model", "model"),
            ("stations", "stations"),
            ("annotate", "annotate"),
            ("engine", "engine"),
        ),
    ),
    (
        "Workers on one card",
        "sharing",
        (
            ("asked for", "workers"),
            ("started", "started"),
            ("picks", "picks"),
            ("seconds", "seconds"),
        ),
    ),
)


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| " + " | ".join(title for title, _ in columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_cell(row, name) for _, name in columns) + " |"


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name, row.get("error", ""))
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="what the measuring program has written")
    parser.add_argument("page", type=Path, nargs="?", default=_PAGE, help="page with the two marks")
    given = parser.parse_args()
    report = json.loads(given.report.read_text(encoding="utf-8"))
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(with_gpu_tables(page, report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
