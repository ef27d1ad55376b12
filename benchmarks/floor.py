"""Lower bound of picking time on a machine: decoding the same bytes, and the bare network.

The arithmetic of a network is counted, so that its time can be compared with what the cores
or the GPU reach on a large matrix product.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3TraceList

from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.errors import InputError
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.pipeline.prepare import prepare
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.slices import available_cores
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_waveforms import task_waveforms

__all__ = ["Floor", "FloorSubject", "Timing", "count_mflop", "measure_floor"]

#: Rows and columns of the matrix product that stands for what the cores or a GPU reach.
MATRIX: Final = 4096

Float32 = NDArray[np.float32]
T = TypeVar("T")

#: Runtimes that are measured where they are installed.
_RUNTIMES = ("torch", "onnxruntime", "openvino")

#: Different windows that are held; of more, these are used again and again.
_HELD_BYTES = 2**30

#: Rounds, and windows in each, with which the fastest ways are found.
_TRIALS, _TRIED = 3, 512


@dataclass
class Timing:
    """Repeated measurements of one part of the floor.

    Attributes
    ----------
    name : str
    seconds : list of float
        For the whole workload.
    mflop : float
        Arithmetic of the whole workload; 0 where there is none to speak of.
    detail : str
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    mflop: float = 0.0
    detail: str = ""

    @property
    def best(self) -> float:
        """The shortest time, seconds."""
        return min(self.seconds)

    @property
    def gflops(self) -> float:
        """10**9 floating-point operations a second."""
        return self.mflop / 1e3 / self.best


@dataclass
class Floor:
    """The parts of the floor.

    Attributes
    ----------
    windows : int
        Of the whole workload.
    measured_windows : int
        Those that were run; times are scaled to all.
    n_bytes : int
        Of the files.
    window_mflop : float
        Arithmetic of one window.
    decode, forward : list of Timing
        Each way to do it.
    products : list of Timing
        The matrix product in each library; the fastest is the peak.
    """

    windows: int
    measured_windows: int
    n_bytes: int
    window_mflop: float
    decode: list[Timing]
    forward: list[Timing]
    products: list[Timing]

    @property
    def peak_gflops(self) -> float:
        """Highest rate of the matrix product, 10**9 floating-point operations a second.

        A convolution that stays in the caches can exceed it by some percent.
        """
        return max(one.gflops for one in self.products)

    @property
    def seconds(self) -> float:
        """The fastest way to decode and the fastest way through the network, seconds."""
        return min(one.best for one in self.decode) + min(one.best for one in self.forward)

    def lines(self) -> Iterator[str]:
        """The table."""
        yield (
            f"{self.windows} windows of {self.window_mflop:.2f} MFLOP, "
            f"{self.n_bytes / 2**20:.1f} MB of files"
        )
        if self.measured_windows < self.windows:
            yield f"({self.measured_windows} windows were run, and times scaled)"
        yield f"{'':26s} {'best':>9s} {'median':>9s} {'MFLOP':>11s} {'GFLOP/s':>8s} {'of peak':>7s}"
        for one in (*self.decode, *self.forward, *self.products):
            times = f"{one.name:26s} {one.best:7.3f} s {statistics.median(one.seconds):7.3f} s"
            speed = ""
            if one.mflop:
                share = 100 * one.gflops / self.peak_gflops
                speed = f" {one.mflop:11.0f} {one.gflops:8.1f} {share:5.1f} %"
            yield f"{times}{speed:29s}  {one.detail}".rstrip()
        yield f"floor: {self.seconds:.3f} s, the fastest decoding and the fastest network"

    def as_dict(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {**asdict(self), "floor_s": self.seconds, "peak_gflops": self.peak_gflops}


def measure_floor(
    workload: Workload,
    *,
    threads: int | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    rounds: int = 5,
    at_most: int | None = None,
) -> Floor:
    """Measure the floor of a workload; all parts take turns.

    Parameters
    ----------
    workload : Workload
    threads : int, optional
        None for one a core.
    device : str
        Where the network runs; on a GPU, torch alone.
    batch_size : int, optional
        None for each runtime's usual one.
    rounds : int
    at_most : int, optional
        Windows that are run in a round, where all would take too long.

    Raises
    ------
    InputError
        The workload holds no window.
    EQCCTProError
        The model or its files cannot be used.
    """
    cores = threads or available_cores()
    weights, tasks, held, windows = _read(workload)
    run = min(windows, at_most or windows)
    files = _files(tasks)
    window_mflop = count_mflop(weights)
    runtimes = _open_runtimes(weights, device, batch_size, cores)
    products = _matrix_products(device, cores)
    floor = Floor(
        windows,
        run,
        sum(Path(path).stat().st_size for path in files),
        window_mflop,
        [Timing(f"decode, {n} threads", detail="pymseed") for n in sorted({1, cores})],
        [
            Timing(kind, mflop=window_mflop * windows, detail=f"batch {runtime.batch_size}")
            for kind, runtime in runtimes.items()
        ],
        [
            Timing(f"matrix product, {library}", mflop=2e-6 * MATRIX**3, detail=f"{MATRIX} squared")
            for library in products
        ],
    )
    for number in range(rounds + 1):  # the first round warms up
        for timing, n in zip(floor.decode, sorted({1, cores}), strict=True):
            _time(timing, number, _decode, files, n)
        for timing, runtime in zip(floor.forward, runtimes.values(), strict=True):
            _time(timing, number, _forward, runtime, held, run, scale=windows / run)
        for timing, multiply in zip(floor.products, products.values(), strict=True):
            _time(timing, number, multiply)
    for runtime in runtimes.values():
        runtime.close()
    return floor


class FloorSubject:
    """The floor beside others: decoding and the fastest runtime, in turns with them.

    What has waited while others worked finds the caches of the cores cold, as they do.

    Parameters
    ----------
    workload : Workload
    threads : int, optional
        None for one a core.
    device : str
    """

    def __init__(
        self, workload: Workload, *, threads: int | None = None, device: str = "cpu"
    ) -> None:
        self._workload = workload
        self._threads = threads or available_cores()
        self._device = device
        self._runtime: Runtime | None = None

    def prepare(self) -> dict[str, Any]:
        """Read the windows, and try all ways; see `eqcctpro.evaluation.subject.Subject`."""
        weights, tasks, self._held, self._windows = _read(self._workload)
        self._files, self._tasks = _files(tasks), len(tasks)
        tried = min(self._windows, len(self._held), _TRIED)
        runtimes = _open_runtimes(weights, self._device, None, self._threads)
        ways = {n: partial(_decode, self._files, n) for n in (1, self._threads)}
        self._decoding = ways[_fastest(ways)]
        best = _fastest(
            {kind: partial(_forward, one, self._held, tried) for kind, one in runtimes.items()}
        )
        self._runtime = runtimes.pop(best)
        for runtime in runtimes.values():
            runtime.close()
        batch = self._runtime.batch_size
        return {"runtime": best, "device": self._device, "batch_size": batch, "workers": 1}

    def run(self, output: Path) -> Outcome:  # noqa: ARG002 (as of all subjects)
        """Decode and predict once; nothing is picked."""
        assert self._runtime is not None
        started = time.perf_counter()
        self._decoding()
        decoded = time.perf_counter()
        _forward(self._runtime, self._held, self._windows)
        ended = time.perf_counter()
        stages = {"decode": decoded - started, "infer": ended - decoded}
        return Outcome(ended - started, stages, self._tasks, 0, 0, {})

    def close(self) -> None:
        """Release the runtime."""
        if self._runtime is not None:
            self._runtime.close()


def _read(workload: Workload) -> tuple[WeightFiles, Sequence[StationTask], Float32, int]:
    """Weights, station tasks, windows that are held, and how many windows there are."""
    from eqcctpro.config import PickConfig

    config = PickConfig.checked(
        **{**workload.settings, "input": workload.input, "model": workload.model},
        output=Path(),
        stations=workload.stations,
    )
    weights = find_run_weights(config)
    picker, settings = describe_run(config, weights)
    tasks = make_plan(
        InputSettings(config.input, layout=config.layout, stations=config.stations)
    ).tasks
    return weights, tasks, *_windows(tasks, picker, settings)


def _files(tasks: Sequence[StationTask]) -> list[str]:
    return sorted({path for task in tasks for path in task.files})


def count_mflop(weights: WeightFiles) -> float:
    """Million floating-point operations of a network for one window.

    Counted on torch while it runs: convolutions and matrix products, those within
    recurrent layers included, a multiplication and an addition being two.
    Normalisation, activations and pooling are not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from eqcctpro.models.loading import curve_module, load_model

    picker, module = load_model(weights)
    curves = curve_module(module).eval()
    windows = torch.randn(1, len(picker.components), picker.in_samples)
    counter = FlopCounterMode(display=False)
    # Without oneDNN a recurrent layer consists of matrix products, which are counted.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a setting of Intel's GPUs
        with torch.backends.mkldnn.flags(enabled=False), torch.no_grad(), counter:
            curves(windows)
    return float(counter.get_total_flops()) / 1e6


def _windows(
    tasks: Sequence[StationTask], picker: Picker, settings: PipelineSettings
) -> tuple[Float32, int]:
    """The windows that the pipeline cuts, as many as are held, and how many there are."""
    shape = (len(picker.components), picker.in_samples)
    most = max(1, _HELD_BYTES // (4 * math.prod(shape)))
    held: list[Float32] = []
    count = 0
    cache = FileCache(needs_record=settings.needs_record)
    for position, task in enumerate(tasks):
        following = tasks[position + 1] if position + 1 < len(tasks) else None
        decoded = cache.read(task, following, settings.context_ns)
        waveforms = task_waveforms(task, decoded, settings)
        for block, offsets in prepare(waveforms, picker, settings).blocks:
            for offset in offsets[: most - len(held)].tolist():
                held.append(block.data[:, offset : offset + picker.in_samples].copy())
            count += len(offsets)
    if not count:
        raise InputError("the workload holds no window", hint="are the records long enough?")
    return np.ascontiguousarray(np.stack(held), dtype=np.float32), count


def _open_runtimes(
    weights: WeightFiles, device: str, batch_size: int | None, threads: int
) -> dict[str, Runtime]:
    from eqcctpro.runtimes.select import open_picker

    kinds = _RUNTIMES if device == "cpu" else ("torch",)
    return {
        kind: open_picker(
            weights, runtime=kind, device=device, batch_size=batch_size, threads=threads
        )[1]
        for kind in kinds
        if find_spec(kind) is not None
    }


def _time(
    timing: Timing, number: int, work: Callable[..., object], *arguments: Any, scale: float = 1.0
) -> None:
    started = time.perf_counter()
    work(*arguments)
    if number:
        timing.seconds.append((time.perf_counter() - started) * scale)


def _fastest(ways: Mapping[T, Callable[[], object]]) -> T:
    """Return the fastest of several functions, timed in turns."""
    timings = {way: Timing(str(way)) for way in ways}
    for number in range(_TRIALS + 1):
        for way, work in ways.items():
            _time(timings[way], number, work)
    return min(timings, key=lambda way: timings[way].best)


def _decode(files: Sequence[str], threads: int) -> None:
    """Every file into one array of float32, once."""
    if threads == 1:
        _decode_some(files)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_decode_some, [files[first::threads] for first in range(threads)]))


def _decode_some(files: Sequence[str]) -> None:
    arena = np.empty(0, dtype=np.float32)
    for path in files:
        traces = MS3TraceList()
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
            traces.add_buffer(file.readall(), unpack_data=True)
        for trace in traces:
            for segment in trace:
                samples = segment.np_datasamples
                if len(samples) > len(arena):
                    arena = np.empty(len(samples), dtype=np.float32)
                arena[: len(samples)] = samples


def _forward(runtime: Runtime, held: Float32, count: int) -> None:
    """Run `count` windows in batches, cycling over those in memory."""
    size = min(runtime.batch_size, len(held))
    starts = range(0, len(held) - size + 1, size)
    done = 0
    while done < count:
        start = starts[done // size % len(starts)]
        batch = held[start : start + min(size, count - done)]
        runtime.predict(batch)
        done += len(batch)


def _matrix_products(device: str, threads: int) -> dict[str, Callable[[], object]]:
    """The matrix product, by library.

    Which library is the fastest differs between processors, by a factor of two and more.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; on a GPU torch multiplies, without TF32 unless
        that was switched on.
    threads : int
        On a CPU.  NumPy takes all cores, and is left out if fewer are asked for.
    """
    random = np.random.default_rng(7)
    left, right = (random.standard_normal((MATRIX, MATRIX), np.float32) for _ in range(2))
    products: dict[str, Callable[[], object]] = {"torch": _by_torch(left, right, device, threads)}
    if device != "cpu":
        return products
    if threads == available_cores():
        result = np.empty_like(left)
        products["numpy"] = lambda: np.matmul(left, right, out=result)
    if find_spec("onnxruntime") is not None and find_spec("onnx") is not None:
        products["onnxruntime"] = _by_onnxruntime(left, right, threads)
    if find_spec("openvino") is not None:
        products["openvino"] = _by_openvino(left, right, threads)
    return products


def _by_torch(left: Float32, right: Float32, device: str, threads: int) -> Callable[[], object]:
    import torch

    operands = [torch.from_numpy(matrix).to(device) for matrix in (left, right)]
    result = torch.empty_like(operands[0])

    def multiply() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.mm(*operands, out=result)
        if device != "cpu":
            torch.cuda.synchronize(device)
        torch.set_num_threads(before)

    return multiply


def _by_onnxruntime(left: Float32, right: Float32, threads: int) -> Callable[[], object]:
    import onnxruntime
    from onnx import TensorProto, helper

    def matrix(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [MATRIX, MATRIX])

    product = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph(
        [product], "product", [matrix("left"), matrix("right")], [matrix("product")]
    )
    # Releases that are far older than any runtime that is supported.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left, "right": right})


def _by_openvino(left: Float32, right: Float32, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13

    shape = [MATRIX, MATRIX]
    operands = [opset13.parameter(shape, openvino.Type.f32) for _ in range(2)]
    model = openvino.Model([opset13.matmul(*operands, False, False)], operands)
    settings = {
        # Some processors would shorten the operands otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([left, right], share_inputs=True, share_outputs=True)
