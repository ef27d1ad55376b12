"""Ctrl-C and SIGTERM: twice while a run picks, once while it writes results and ends."""

from __future__ import annotations

import json
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


@pytest.mark.slow
def test_ctrl_c_in_a_program_of_ones_own_is_a_keyboard_interrupt(
    generated_network: tuple[Path, object],
    imported_model: str,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    parent, child = imported_model.split("/")
    caught = []
    for turn in range(4):  # writing takes a moment only, and may be over when the signal comes
        script, output = tmp_path / f"{turn}.py", tmp_path / str(turn)
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
        said = signalled(run, signal.SIGINT, output / "picks.csv", 0.0)
        assert run.returncode == 0, said
        assert "done 0" in said
        assert results(output) == undisturbed
        caught.append("caught interrupted while the results were written" in said)
        if caught[-1]:
            break
    assert any(caught)


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def long_network(
    generated_network: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Records that take seconds to pick."""
    from eqcctpro.synthetic.tiling import tile_network

    folder = tmp_path_factory.mktemp("long") / "archive"
    return tile_network(generated_network[0], folder, stations=200, seconds=100.0)


def signalled_twice(
    run: subprocess.Popen[str],
    number: signal.Signals,
    output: Path,
    delay_s: float,
    between_s: float = 0.1,
) -> str:
    """What a process said that got a signal twice while it picked."""
    until = time.monotonic() + 60
    while not (output / ".eqcctpro" / "journal.sqlite").exists() and run.poll() is None:
        assert time.monotonic() < until, "no journal"
        time.sleep(0.001)
    time.sleep(delay_s)
    run.send_signal(number)
    time.sleep(between_s)
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    return said


@pytest.mark.slow
def test_the_second_signal_stops_at_once_and_the_run_goes_on_later(
    long_network: Path, imported_model: str, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert start(long_network, undisturbed, imported_model).wait(120) == 0
    picking_s = json.loads((undisturbed / "summary.json").read_text())["seconds"]["pick"]
    for turn, delay_s in enumerate(picking_s * share for share in (0.1, 0.4)):
        output = tmp_path / str(turn)
        run = start(long_network, output, imported_model)
        number = signal.SIGTERM if turn % 2 else signal.SIGINT
        said = signalled_twice(run, number, output, delay_s)
        assert run.returncode == 130 and "Traceback" not in said, (delay_s, said)
        assert "interrupted" in said
    assert start(long_network, output, imported_model).wait(120) == 0
    assert results(output) == results(undisturbed)


@pytest.mark.slow
def test_a_program_goes_on_after_the_second_signal(
    long_network: Path, imported_model: str, tmp_path: Path
) -> None:
    parent, child = imported_model.split("/")
    script, output = tmp_path / "script.py", tmp_path / "out"
    script.write_text(
        PROGRAM.format(archive=str(long_network), output=str(output), parent=parent, child=child)
    )
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = signalled_twice(run, signal.SIGINT, output, 0.3, between_s=0.05)
    assert run.returncode == 0 and "caught" in said and "done 0" in said, said


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


DROPPED = """
import sys
from pathlib import Path
import numpy as np
from eqcctpro.runtimes.openvino_runtime import OpenVinoRuntime

for turn in range(5):
    runtime = OpenVinoRuntime(Path(sys.argv[1]), batch_size=128)
    result = runtime.submit(np.ones((128, 3, 6000), np.float32))
    runtime.close()
    del runtime, result
print("went on")
"""


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """A network of three convolutions, which takes a while with a batch."""
    pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    shape = [None, 3, 6000]
    layers = [("windows", "first", 3, 32), ("first", "second", 32, 32), ("second", "curves", 32, 3)]
    nodes, weights = [], []
    for source, target, inputs, outputs in layers:
        name, size = f"{target}_weights", [outputs, inputs, 15]
        values = [0.01] * (outputs * inputs * 15)
        weights.append(helper.make_tensor(name, TensorProto.FLOAT, size, values))
        nodes.append(helper.make_node("Conv", [source, name], [target], pads=[7, 7]))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [value("windows", TensorProto.FLOAT, shape)],
        [value("curves", TensorProto.FLOAT, shape)],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def said_by(program: str, model: Path) -> str:
    """What a program said that was given a network, and ended well."""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    return ended.stdout


@pytest.mark.slow
def test_openvino_may_be_dropped_while_it_executes(onnx_model: Path) -> None:
    """Ctrl-C drops it so; its threads read and write arrays for some time yet."""
    assert said_by(DROPPED, onnx_model) == "went on\n"


@pytest.mark.slow
def test_openvino_released_by_another_thread_leaves_signals_to_python(onnx_model: Path) -> None:
    """It frees the signal stack that it had given to the thread that loaded it."""
    assert said_by(STACKS, onnx_model) == "interrupted\n"


# Before the command is loaded, when it is, before it has begun, and while it says what happened.
EARLY = {
    "loading": """
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "eqcctpro.cli":
            interrupt()
sys.meta_path.insert(0, Finder)
""",
    "starting": """
import eqcctpro.cli
eqcctpro.cli.open_standard_streams = interrupt
""",
    "begun": """
import eqcctpro.cli
eqcctpro.cli.app.registered_callback.callback = lambda version=None: interrupt()
""",
    "in the command": """
from eqcctpro.cli import errors
errors._shown_warnings = lambda warn: interrupt()
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", EARLY)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_early_signal_ends_the_command_with_one_line(
    number: int, moment: str, tmp_path: Path
) -> None:
    program = f"""
import os, signal, sys, eqcctpro.__main__
def interrupt():
    os.kill(os.getpid(), {int(number)})
    signal.getsignal({int(number)})
{EARLY[moment]}
eqcctpro.__main__.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, "status", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
