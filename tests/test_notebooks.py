"""Notebooks: those of the documentation run, results show themselves, progress stays one line."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from repository import ROOT

from eqcctpro.orchestration.progress import Progress
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.stream_picking import StreamResult

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_of_the_documentation_run(
    path: Path,
    imported_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    from eqcctpro.association.pyocto_environment import python_with_pyocto
    from eqcctpro.errors import RuntimeUnavailableError

    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    try:
        python_with_pyocto()
    except RuntimeUnavailableError:
        tagged = [cell for cell in notebook.cells if "pyocto" in cell.metadata.get("tags", ())]
        notebook.cells = [cell for cell in notebook.cells if cell not in tagged]
    nbclient.NotebookClient(
        notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = [(output, cell) for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = {
        kind: "".join(output.data[kind])
        for output, _ in said
        if "data" in output
        for kind in output.data
    }
    assert "image/png" in shown and "text/html" in shown
    html = [
        output.data["text/html"]
        for output, cell in said
        if "data" in output and cell.source.endswith("result") and "text/html" in output.data
    ]
    assert "<b>10</b> done" in html[0] and "<td>XX.S0001.00.HH</td>" in html[0]
    text = "".join(output.text for output, _ in said if output.output_type == "stream")
    recalls = re.findall(r"recall ([\d.]+)", text)
    assert len(recalls) == 2 and min(map(float, recalls)) > 0.8
    assert "\r10/10 stations" in text or "10/10 stations" in text


def test_code_of_notebooks_is_tidy() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert all(cell["id"] for cell in content["cells"])
        assert path.name in (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")


def test_a_result_shows_itself() -> None:
    times = (np.arange(12) + 1_734_264_000) * 1_000_000
    columns: dict[str, Any] = {name: [f"<{name}>"] * 12 for name in PICK_SCHEMA.names}
    for name in ("time", "start_time", "end_time"):
        columns[name] = pa.array(times).cast(pa.timestamp("us", tz="UTC"))
    columns["probability"] = pa.array([None, *[0.876] * 11], pa.float32())
    result = StreamResult(pa.table(columns, PICK_SCHEMA), None, {}, ["a <trace>: bad"])
    html = result._repr_html_()
    assert html.count("<tr>") == 11 and "and 2 more in <code>picks</code>" in html
    assert "<td>&lt;network&gt;.&lt;station&gt;.&lt;location&gt;.&lt;channel&gt;</td>" in html
    assert "left out: a &lt;trace&gt;: bad" in html and "<b>12</b> picks" in html
    assert "<td>2024-12-15 12:00:01.000</td><td>0.88</td>" in html
    assert "<trace>" not in html and "<network>" not in html


def test_progress_in_a_cell_writes_over_its_line() -> None:
    cell = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with Progress(3, stream=cell) as progress:
        progress._shown -= 10
        progress.add(done=2, picks=1234567, failed=1)
        progress.add(done=1, picks=0, failed=0)  # too soon to be shown
    lines = cell.getvalue().split("\r")
    assert [line[:11] for line in lines] == ["", "2/3 stations"[:11], "3/3 stations"[:11]]
    assert "\x1b" not in cell.getvalue() and cell.getvalue().endswith("\n")
    assert len(lines[2].rstrip("\n")) >= len(lines[1])
