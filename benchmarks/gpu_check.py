"""Checks and measurements of a GPU, each recorded as soon as it is done."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from eqcctpro.models.picker import Picker
    from eqcctpro.orchestration.worker import TaskPicker
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

__all__ = ["CHECKS", "Options", "PickSets", "Setting", "rehearsal", "run_checks", "same_picks"]

#: Picks within this time are of the same arrival.
SAME_ARRIVAL_NS = 100_000_000


@dataclass(frozen=True)
class Options:
    """What is checked, and with how much.

    Attributes
    ----------
    device : str
        ``"cuda"``, ``"mps"``, or ``"cpu"`` for a rehearsal.
    models : tuple of str
        The first one is measured in most ways.
    stations : tuple of int
        Sizes of networks, a minute of each station.
    batches : tuple of int
        Windows in a batch.
    workers : tuple of int
        Workers that share the GPU.
    records : Path or None
        An archive whose records are repeated, and whose picks are compared; a synthetic one by
        default.
    minutes : float
        After which no further check is begun.
    """

    device: str = "cuda"
    models: tuple[str, ...] = (
        "PhaseNet/original", "EQTransformer/original", "GPD/original", "EQCCT/original",
    )  # fmt: skip
    stations: tuple[int, ...] = (200, 580, 2000, 20_000)
    batches: tuple[int, ...] = (64, 256, 1024, 2048, 4096)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    records: Path | None = None
    minutes: float = 10.0


@dataclass
class Setting:
    """What checks share: the options, a folder, and opened models.

    Attributes
    ----------
    options : Options
    folder : Path
    until : float
        When it is enough, by `time.monotonic`.
    """

    options: Options
    folder: Path
    until: float
    _archives: dict[int, Path] = field(default_factory=dict)

    @property
    def torch(self) -> Any:
        """The module."""
        import torch

        return torch

    def left_s(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.options.device.startswith("cuda"):
            self.torch.cuda.synchronize()
        elif self.options.device == "mps":
            self.torch.mps.synchronize()

    @cached_property
    def records(self) -> Path:
        """An archive of some records."""
        if self.options.records is not None:
            return self.options.records
        from eqcctpro.synthetic.network import synthetic_network

        synthetic_network(self.folder / "records", stations=40, duration_s=120.0)
        return self.folder / "records"

    def archive(self, stations: int) -> Path:
        """An archive of so many stations, a minute each."""
        if stations not in self._archives:
            from eqcctpro.synthetic.tiling import tile_network

            folder = self.folder / f"stations-{stations}"
            self._archives[stations] = tile_network(self.records, folder, stations=stations)
        return self._archives[stations]

    def network(self, model: str, *, eager: bool = False) -> tuple[Picker, Any]:
        """A model's description and its module, on the CPU."""
        from eqcctpro.models.exportable import exportable
        from eqcctpro.models.loading import curve_module, load_model
        from eqcctpro.models.weight_files import split_name
        from eqcctpro.models.weights import find_weights

        picker, module = load_model(find_weights(*split_name(model)))
        return picker, (curve_module if eager else exportable)(module)

    def runtime(
        self, model: str, device: str | None = None, *, eager: bool = False, **options: Any
    ) -> tuple[Picker, DeviceRuntime]:
        """A model on a device."""
        from eqcctpro.runtimes.device_runtime import DeviceRuntime

        picker, module = self.network(model, eager=eager)
        runtime = DeviceRuntime(
            module,
            components=len(picker.components),
            in_samples=picker.in_samples,
            device=device or self.options.device,
            **({"batch_size": 256} | options),
        )
        return picker, runtime

    def station_picker(self, model: str, runtime: DeviceRuntime) -> TaskPicker:
        """The engine with an opened model and its own settings."""
        from eqcctpro.config import ModelConfig
        from eqcctpro.orchestration.model_choice import describe, find_run_weights
        from eqcctpro.orchestration.worker import TaskPicker
        from eqcctpro.pipeline.opening import pipeline_on
        from eqcctpro.sources.task_settings import TaskSettings

        config = ModelConfig.checked(model=model)
        picker, settings = describe(config, find_run_weights(config))
        return TaskPicker(pipeline_on(picker, runtime, settings), TaskSettings.of(settings))


def run_checks(options: Options, path: Path, only: Sequence[str] = ()) -> bool:
    """Do all checks; the file holds after each one what is known.

    Parameters
    ----------
    options : Options
    path : Path
        Of the JSON file.
    only : sequence of str
        Names of checks; all by default.

    Returns
    -------
    bool
        True if every one ran to its end, whatever it has found.
    """
    checks: dict[str, dict[str, Any]] = {}
    report = {"options": _plain(asdict(options)), "complete": False, "checks": checks}
    with tempfile.TemporaryDirectory(prefix="eqcctpro-gpu-") as folder:
        setting = Setting(options, Path(folder), time.monotonic() + 60 * options.minutes)
        before = os.environ.get("EQCCTPRO_CONFIG")
        os.environ["EQCCTPRO_CONFIG"] = str(Path(folder) / "configuration")
        try:
            for name in only or CHECKS:
                checks[name] = _checked(name, setting)
                _write(path, report)
        finally:
            if before is None:
                del os.environ["EQCCTPRO_CONFIG"]
            else:
                os.environ["EQCCTPRO_CONFIG"] = before
    complete = all(check["state"] == "ran" for check in checks.values())
    _write(path, report | {"complete": complete})
    return complete


def _checked(name: str, setting: Setting) -> dict[str, Any]:
    """The result of one check, of whatever kind its end is."""
    if setting.left_s() <= 0:
        return {"state": "left out", "reason": f"{setting.options.minutes:g} minutes are over"}
    started = time.monotonic()
    try:
        result = CHECKS[name](setting)
        state: dict[str, Any] = {"state": "ran", **_plain(result)}
    except ModuleNotFoundError as error:
        state = {"state": "left out", "reason": f"{error.name} is not installed"}
    except Exception as error:  # the report is worth more than the reason of one gap in it
        said = f"{type(error).__name__}: {error}"
        state = {"state": "failed", "reason": said, "traceback": traceback.format_exc(limit=-6)}
    state["seconds"] = round(time.monotonic() - started, 2)
    print(f"{name}: {state['state']} {state.get('reason', '')}".rstrip(), file=sys.stderr)
    return state


def _write(path: Path, report: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(report, indent=1), encoding="utf-8")
    part.replace(path)


def _plain(value: Any) -> Any:
    """A value as JSON holds it: numbers rounded, no NaN."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.5g}") if np.isfinite(value) else str(value)
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def facts(setting: Setting) -> dict[str, Any]:
    """The machine and its software."""
    from importlib import metadata

    from eqcctpro.resources.devices import resolve
    from eqcctpro.resources.hardware import usable_cores
    from eqcctpro.resources.nvml import read_gpus

    torch = setting.torch
    versions: dict[str, str | None] = {}
    for name in ("torch", "triton", "seisbench", "numpy", "ray", "pymseed", "eqcctpro"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    device = resolve(setting.options.device)
    gpus, reason = read_gpus()
    return {
        "device": asdict(device),
        "cores": usable_cores(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.kind == "cuda" else None,
        "gpus": [asdict(gpu) for gpu in gpus],
        "gpu_note": reason,
    }


def agreement(setting: Setting) -> dict[str, Any]:
    """Each model on the device, as written and rewritten, against the CPU; and twice."""
    from eqcctpro.models.export import trial_windows

    found: dict[str, Any] = {}
    for model in setting.options.models:
        picker, here = setting.runtime(model, "cpu", batch_size=16)
        windows = trial_windows(len(picker.components), picker.in_samples)
        dead = windows[:2].copy()
        dead[0, 1] = 1234.0
        dead[1, 0] = 0.0
        windows = np.concatenate([windows, dead])
        expected = here.predict(windows)
        here.close()
        kinds: dict[str, Any] = {}
        for kind, eager in (("eager", True), ("exportable", False)):
            try:
                _, there = setting.runtime(model, eager=eager, batch_size=16)
                first, again = there.predict(windows).copy(), there.predict(windows)
                there.close()
            except RuntimeError as error:  # SeisBench's own may not run on the device
                kinds[kind] = {"error": str(error).splitlines()[0]}
                continue
            difference = np.abs(first - expected).reshape(len(windows), -1).max(axis=1)
            kinds[kind] = {
                "largest": difference.max(),
                "largest_dead": difference[-2:].max(),
                "same_twice": bool((first == again).all()),
            }
        found[model] = kinds
    return {"models": found}


def window_times(setting: Setting) -> dict[str, Any]:
    """Microseconds a window by model, batch, kind of network and precision."""
    rows: list[dict[str, Any]] = []
    kinds = ("exportable", "eager", "graph")
    precisions = ["f32", "bf16"]
    if setting.options.device.startswith("cuda"):
        precisions = ["f32", "tf32", "fp16", "bf16"]
    for model in setting.options.models:
        for kind in kinds if setting.options.device.startswith("cuda") else kinds[:2]:
            for precision in precisions if kind != "eager" else precisions[:1]:
                for batch in setting.options.batches:
                    if setting.left_s() < 0:
                        return {"rows": rows, "ended_early": True}
                    row: dict[str, Any] = {
                        "model": model, "kind": kind, "precision": precision, "batch": batch,
                    }  # fmt: skip
                    try:
                        row["us"] = _window_us(setting, model, kind, precision, batch)
                    except Exception as error:
                        row["error"] = str(error).splitlines()[0]
                    rows.append(row)
    return {"rows": rows, "ended_early": False}


def _window_us(setting: Setting, model: str, kind: str, precision: str, batch: int) -> float:
    picker, runtime = setting.runtime(
        model, eager=kind == "eager", batch_size=batch, precision=precision,
        graphs=kind == "graph",
    )  # fmt: skip
    lane = runtime.lanes[0]
    lane.clear()
    random = np.random.default_rng(0)
    step = picker.in_samples // 2
    samples = picker.in_samples + step * (batch - 1)
    data = random.normal(0, 1000, (len(picker.components), samples)).astype(np.float32)
    lane.add(data, range(0, step * batch, step))
    best = np.inf
    begun, rounds = time.monotonic(), 0
    while rounds < 2 or (rounds < 8 and time.monotonic() - begun < 2.0):
        setting.synchronise()
        started = time.perf_counter()
        runtime.run(lane)()
        setting.synchronise()
        if rounds:  # the first one prepares
            best = min(best, time.perf_counter() - started)
        rounds += 1
    if runtime.take_notes():
        raise MemoryError(f"{batch} windows do not fit")
    runtime.close()
    return float(best / batch * 1e6)


def ceilings(setting: Setting) -> dict[str, Any]:
    """How fast the device copies and multiplies."""
    torch, device = setting.torch, setting.options.device
    megabytes = 256 if device.startswith("cuda") else 32
    floats = megabytes * 2**18
    here = torch.empty(floats, pin_memory=device.startswith("cuda"))
    there = torch.empty(floats, device=device)
    other = torch.empty(floats, device=device)
    side = 4096 if device.startswith("cuda") else 512
    found: dict[str, Any] = {
        "to_device_gb_s": megabytes / 1024 / _best(setting, lambda: there.copy_(here)),
        "to_host_gb_s": megabytes / 1024 / _best(setting, lambda: here.copy_(there)),
        "on_device_gb_s": 2 * megabytes / 1024 / _best(setting, lambda: other.copy_(there)),
    }
    kinds = [("f32", torch.float32, False), ("bf16", torch.bfloat16, False)]
    if device.startswith("cuda"):
        kinds += [("tf32", torch.float32, True), ("fp16", torch.float16, False)]
    for name, dtype, short in kinds:
        torch.backends.cuda.matmul.allow_tf32 = short
        matrix = torch.randn(side, side, device=device).to(dtype)
        seconds = _best(setting, lambda m=matrix: m @ m)  # type: ignore[misc]
        found[f"gemm_{name}_tflops"] = 2 * side**3 / seconds / 1e12
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def _best(setting: Setting, work: Callable[[], Any], rounds: int = 5) -> float:
    best = np.inf
    for _ in range(rounds):
        setting.synchronise()
        started = time.perf_counter()
        work()
        setting.synchronise()
        best = min(best, time.perf_counter() - started)
    return float(best)


@dataclass
class PickSets:
    """Two sets of picks, compared.

    Attributes
    ----------
    both, only_first, only_second : int
    same_sample : int
        Of both.
    largest_difference : float
        Of the probabilities of those of both.
    """

    both: int = 0
    only_first: int = 0
    only_second: int = 0
    same_sample: int = 0
    largest_difference: float = 0.0


#: Times (ns) and probabilities of picks, by whatever they are of.
Picks = dict[Any, list[tuple[int, float]]]


def same_picks(first: Picks, second: Picks, tolerance_ns: int = SAME_ARRIVAL_NS) -> PickSets:
    """Match picks of the same thing that are near each other, each once, the nearest first."""
    found = PickSets()
    for key in first.keys() | second.keys():
        one, other = first.get(key, []), second.get(key, [])
        pairs = sorted(
            (abs(a[0] - b[0]), i, j)
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if abs(a[0] - b[0]) <= tolerance_ns
        )
        left, right = set(range(len(one))), set(range(len(other)))
        for distance, i, j in pairs:
            if i in left and j in right:
                left.remove(i)
                right.remove(j)
                found.both += 1
                found.same_sample += distance == 0
                difference = abs(one[i][1] - other[j][1])
                found.largest_difference = max(found.largest_difference, difference)
        found.only_first += len(left)
        found.only_second += len(right)
    return found


def _picked(setting: Setting, model: str, runtime: DeviceRuntime, archive: Path) -> Picks:
    from eqcctpro.archive.plan import InputSettings, make_plan

    tasks = make_plan(InputSettings((archive,))).tasks
    found: Picks = {}
    for results in setting.station_picker(model, runtime).pick(tasks):
        for result in results:
            task = result.ticket
            for raw in (result.picks, result.detections):
                for label, peak, probability in zip(
                    raw.label.tolist(), raw.time_ns.tolist(), raw.probability.tolist(), strict=True
                ):
                    key = (task.station, task.location, task.chunk.name, label)
                    found.setdefault(key, []).append((peak, probability))
    return found


def parity(setting: Setting) -> dict[str, Any]:
    """Sets of picks of whole archives: the device against the CPU, and precisions against f32."""
    rows: list[dict[str, Any]] = []
    on_gpu = setting.options.device.startswith("cuda")
    for model in setting.options.models:
        _, here = setting.runtime(model, "cpu", batch_size=64, part=16)
        expected = _picked(setting, model, here, setting.records)
        here.close()
        for precision in ("f32", "tf32", "fp16", "bf16") if on_gpu else ("f32", "fp16", "bf16"):
            _, there = setting.runtime(model, precision=precision, batch_size=64)
            found = _picked(setting, model, there, setting.records)
            there.close()
            sets = asdict(same_picks(expected, found))
            rows.append({"model": model, "precision": precision, **sets})
    return {"rows": rows}


def stages(setting: Setting) -> dict[str, Any]:
    """Seconds of each stage by the size of the network, and how long the device was busy."""
    from eqcctpro.archive.plan import InputSettings, make_plan

    rows: list[dict[str, Any]] = []
    for model in setting.options.models[:2]:
        _, runtime = setting.runtime(model, batch_size=max(setting.options.batches[-2:]))
        picker = setting.station_picker(model, runtime)
        for stations in setting.options.stations:
            if setting.left_s() < 0:
                return {"rows": rows, "ended_early": True}
            archive = setting.archive(stations)
            for _ in range(2):  # the second one is warm
                started = time.perf_counter()
                tasks = make_plan(InputSettings((archive,))).tasks
                planned = time.perf_counter()
                before = dict(picker.pipeline.stages.seconds)
                with _busy(setting, runtime) as busy:
                    results = [one for some in picker.pick(tasks) for one in some]
                ended = time.perf_counter()
            picks = sum(len(result.picks) for result in results)
            rows.append(
                {
                    "model": model,
                    "stations": stations,
                    "plan_s": planned - started,
                    "run_s": ended - planned,
                    "busy_share": busy() / (ended - planned),
                    "picks": picks,
                    **{
                        f"{stage}_s": seconds
                        for stage, seconds in picker.pipeline.stages.since(before).items()
                    },
                }
            )
        runtime.close()
    return {"rows": rows, "ended_early": False}


@contextmanager
def _busy(setting: Setting, runtime: DeviceRuntime) -> Iterator[Callable[[], float]]:
    """Seconds in which the device worked on batches."""
    queue, torch = runtime.queue, setting.torch
    on_gpu = setting.options.device.startswith("cuda")
    spans: list[Any] = []
    submit = queue.submit

    def timed(work: Callable[[], Any]) -> Callable[[], Any]:
        def work_timed() -> Any:
            if not on_gpu:
                started = time.perf_counter()
                result = work()
                spans.append(time.perf_counter() - started)
                return result
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = work()
            end.record()
            spans.append((begin, end))
            return result

        return submit(work_timed)

    def seconds() -> float:
        setting.synchronise()
        if not on_gpu:
            return float(sum(spans))
        return float(sum(begin.elapsed_time(end) for begin, end in spans) / 1000)

    queue.submit = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        queue.submit = submit  # type: ignore[method-assign]


def annotate(setting: Setting) -> dict[str, Any]:
    """SeisBench's ``annotate`` on the device in turns with the engine, on waveforms in memory."""
    import obspy
    import seisbench.models as sbm

    stations = setting.options.stations[0]
    archive = setting.archive(stations)
    stream = obspy.read(str(archive / "*" / "*" / "*.mseed"))
    rows: list[dict[str, Any]] = []
    for model in setting.options.models[:2]:
        name, weights = model.split("/")
        module = getattr(sbm, name).from_pretrained(weights).to(setting.options.device)
        _, runtime = setting.runtime(model)
        times: dict[str, list[float]] = {"annotate": [], "engine": []}
        for _ in range(3):
            started = time.perf_counter()
            module.annotate(stream, batch_size=512)
            setting.synchronise()
            times["annotate"].append(time.perf_counter() - started)
            started = time.perf_counter()
            _picked(setting, model, runtime, archive)
            times["engine"].append(time.perf_counter() - started)
        runtime.close()
        rows.append(
            {"model": model, "stations": stations, **{k: min(v[1:]) for k, v in times.items()}}
        )
    return {"rows": rows, "note": "the engine plans, reads and decodes; annotate does not"}


def recovery(setting: Setting) -> dict[str, Any]:
    """A batch that exceeds its limit is halved, and gives the same curves."""
    torch = setting.torch
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    class Greedy(torch.nn.Module):  # type: ignore[name-defined]
        """Takes 32 MB for each window; without a limit, it says that there is no more."""

        def forward(self, windows: Any) -> Any:
            if setting.options.device == "cpu" and len(windows) > 8:
                raise torch.OutOfMemoryError("rehearsal")
            megabytes = 32 if setting.options.device != "cpu" else 1
            waste = torch.zeros((len(windows), megabytes, 2**18), device=windows.device)
            return windows[:, :1, :2].transpose(1, 2) * 2 + waste[:, :1, :1]

    windows = np.random.default_rng(0).normal(size=(64, 3, 100)).astype(np.float32)
    runtime = DeviceRuntime(
        Greedy(), components=3, in_samples=100, batch_size=64, device=setting.options.device,
        vram_mb=512,
    )  # fmt: skip
    curves = runtime.predict(windows)
    notes = runtime.take_notes()
    on_gpu = setting.options.device.startswith("cuda")
    reserved = torch.cuda.max_memory_reserved() / 2**20 if on_gpu else 0.0
    runtime.close()
    exact = bool(np.allclose(curves[:, :, 0], windows[:, 0, :2] * 2))
    return {"ok": exact and bool(notes), "notes": notes, "reserved_mb": reserved}


def footprint(setting: Setting) -> dict[str, Any]:
    """Memory of a worker, and the plan that is made of it."""
    from eqcctpro.config import PickConfig
    from eqcctpro.orchestration.placement import place_workers
    from eqcctpro.orchestration.probe import measure_footprint
    from eqcctpro.resources.footprints import save_footprints

    device = setting.options.device
    measured = measure_footprint(setting.options.models[0], runtime="torch", device=device)
    save_footprints([measured])
    config = PickConfig.checked(
        input=setting.records, output=setting.folder / "out", model=setting.options.models[0],
        runtime="torch", device=device, mode="modelactor", workers=10_000,
    )  # fmt: skip
    plan = place_workers(config).plan
    assert plan is not None
    return {"measured": asdict(measured), "workers": plan.workers, "plan": plan.as_dict()}


def sharing(setting: Setting) -> dict[str, Any]:
    """Workers on one GPU: seconds of a run, and the memory that they take."""
    import ray  # noqa: F401

    from eqcctpro.config import PickConfig
    from eqcctpro.orchestration.run import run_picking

    rows: list[dict[str, Any]] = []
    archive = setting.archive(setting.options.stations[0])
    for workers in setting.options.workers:
        if setting.left_s() < 0:
            return {"rows": rows, "ended_early": True}
        config = PickConfig.checked(
            input=archive, output=setting.folder / f"workers-{workers}", overview=False,
            model=setting.options.models[0], runtime="torch", device=setting.options.device,
            mode="modelactor", workers=workers,
        )  # fmt: skip
        result = run_picking(config)
        summary = result.summary
        rows.append(
            {
                "workers": workers,
                "started": summary["workers"],
                "picks": result.table.num_rows,
                "seconds": summary.get("seconds"),
                "resources": summary.get("resources"),
                "limits": summary.get("limits"),
            }
        )
    return {"rows": rows, "ended_early": False}


#: The most valuable first.
CHECKS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "facts": facts,
    "agreement": agreement,
    "parity": parity,
    "stages": stages,
    "window_times": window_times,
    "ceilings": ceilings,
    "annotate": annotate,
    "recovery": recovery,
    "footprint": footprint,
    "sharing": sharing,
}


def rehearsal(options: Options) -> Options:
    """The same checks, so small that a CPU does them in a minute."""
    return replace(options, models=options.models[:1], stations=(4,), batches=(8, 16), workers=(1,))
