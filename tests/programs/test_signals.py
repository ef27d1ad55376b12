"""Ctrl-C and SIGTERM while results are written and while the process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RESULTS = ("picks.csv", "picks.parquet", "detections.csv", "detections.parquet")
# A file that appears while the run ends, and how long after it the signal comes.  The last
# ones come when everything is written, and Python is on its way out.
MOMENTS = [
    *(("picks.csv", 0.0), ("detections.csv", 0.0), ("detections.parquet", 0.05)),
    *(("detections.parquet", 0.1), ("overview.png", 0.0)),
    *(("summary.json", 0.0), ("summary.json", 0.06)),
]
OPTIONS = ("--runtime", "openvino", "--format", "csv,parquet")

PROGRAM = """
import sys, time
from eqcctpro import RunEQCCTPro

def pick():
    return RunEQCCTPro(
        input_dir={archive!r}, output_dir={output!r}, model_type="seisbench",
        seisbench_parent_model={parent!r}, seisbench_child_model={child!r},
        mode="local", runtime="openvino", formats=("csv", "parquet"),
    ).run_eqcctpro()

try:
    pick()
except KeyboardInterrupt as error:
    print("caught", error, flush=True)
    result = pick()
    print("done", result.counts["failed"], flush=True)
"""


@pytest.fixture(scope="module")
def undisturbed(
    generated_network: tuple[Path, object],
    imported_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    run = start(generated_network[0], output, imported_model)
    assert run.wait(60) == 0
    return results(output)


def start(archive: Path, output: Path, model: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eqcctpro", "pick", archive, "-o", output, "--model", model]
    return subprocess.Popen(
        [*map(str, command), *OPTIONS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def signalled(
    run: subprocess.Popen[str], number: signal.Signals, file: Path, delay_s: float
) -> str:
    """What a process said that got a signal some time after a file had appeared."""
    until = time.monotonic() + 60
    while not file.exists() and run.poll() is None:
        assert time.monotonic() < until, f"no {file.name}"
        time.sleep(0.001)
    time.sleep(delay_s)
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    return said


@pytest.mark.slow
def test_signals_through_writing_and_ending(
    generated_network: tuple[Path, object],
    imported_model: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    archive, codes = generated_network[0], []
    for turn, (file, delay_s) in enumerate(MOMENTS):
        output = tmp_path / str(turn)
        run = start(archive, output, imported_model)
        number = signal.SIGTERM if turn % 2 else signal.SIGINT
        said = signalled(run, number, output / file, delay_s)
        codes.append(run.returncode)
        assert run.returncode in (0, 130), (file, delay_s, said)
        assert "Traceback" not in said
        complete = not (output / ".eqcctpro").exists() and (output / "summary.json").exists()
        if not complete:
            assert run.returncode == 130 and "the same command" in said
            if turn < 2:  # each takes a second
                assert start(archive, output, imported_model).wait(60) == 0
                complete = True
        if complete:
            assert results(output) == undisturbed, (file, delay_s)
    assert codes[:2] == [130, 130], "the first come long before the end"


@pytest.mark.slow
def test_termination_while_ray_ends(
    generated_network: tuple[Path, object], imported_model: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    options = ("--mode", "modelactor", "--workers", "2")
    run = start(generated_network[0], tmp_path, imported_model, *options)
    said = signalled(run, signal.SIGTERM, tmp_path / "picks.csv", 0.4)
    assert run.returncode in (0, 130) and "Traceback" not in said, said


def test_ctrl_c_in_a_program_of_ones_own_is_a_keyboard_interrupt(
    generated_network: tuple[Path, object],
    imported_model: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    parent, child = imported_model.split("/")
    script, output = tmp_path / "script.py", tmp_path / "out"
    script.write_text(
        PROGRAM.format(
            archive=str(generated_network[0]), output=str(output), parent=parent, child=child
        )
    )
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = signalled(run, signal.SIGINT, output / "detections.parquet", 0.1)
    assert run.returncode == 0, said
    assert "caught interrupted while the results were written" in said
    assert "done 0" in said
    assert results(output) == undisturbed


def test_handlers_of_a_program_stay_its_own(
    generated_network: tuple[Path, object], imported_model: str, tmp_path: Path
) -> None:
    """Signals that a program handles itself, or ignores, do not interrupt a run in it."""
    parent, child = imported_model.split("/")
    archive, output = str(generated_network[0]), str(tmp_path / "out")
    program = PROGRAM.format(archive=archive, output=output, parent=parent, child=child)
    head = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        head + program + "print('end', signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "out" / "run.log").exists():
        assert run.poll() is None
        time.sleep(0.001)
    run.send_signal(signal.SIGINT)
    said = signalled(run, signal.SIGTERM, tmp_path / "out" / "picks.csv", 0.0)
    assert run.returncode == 0 and "caught" not in said, said
    assert "mine" in said and "end True" in said


STACKS = """
import signal, sys, threading
from eqcctpro.runtimes.openvino_runtime import OpenVinoRuntime
from pathlib import Path

opened = [OpenVinoRuntime(Path(sys.argv[1]), batch_size=2)]
closing = threading.Thread(target=lambda: opened.pop().close())
closing.start()
closing.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_openvino_released_by_another_thread_leaves_signals_to_python(tmp_path: Path) -> None:
    """It frees the signal stack that it had given to the thread that loaded it."""
    pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    shape = [None, 3, 400]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["windows"], ["curves"])],
        "relu",
        [value("windows", TensorProto.FLOAT, shape)],
        [value("curves", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    ended = subprocess.run(
        [sys.executable, "-c", STACKS, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
