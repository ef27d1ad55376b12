"""Opening a picker: its description, and the runtime that executes it.

The way that a worker usually takes, an exported model in the cache, imports neither
torch nor SeisBench.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from eqcctpro.config import Precision, parse_device
from eqcctpro.errors import ExportError, RuntimeUnavailableError, SettingsError
from eqcctpro.models.cache import cache_folder
from eqcctpro.models.export import Export, cached_export, complete_export, find_export
from eqcctpro.models.picker import Picker
from eqcctpro.resources.devices import Device, resolve
from eqcctpro.resources.nvml import read_gpus
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.calibration import calibrated, fastest
from eqcctpro.runtimes.onnx_runtime import OnnxRuntime
from eqcctpro.runtimes.openvino_runtime import OpenVinoRuntime
from eqcctpro.runtimes.slices import MAX_SLICE, available_cores, slice_size

if TYPE_CHECKING:
    from eqcctpro.models.weight_files import WeightFiles
    from eqcctpro.runtimes.device_runtime import DeviceRuntime
    from eqcctpro.runtimes.tensorflow_runtime import TensorFlowRuntime
    from eqcctpro.runtimes.torch_runtime import TorchRuntime

__all__ = [
    "RUNTIMES",
    "check_runtime",
    "default_batch_size",
    "load_picker",
    "needs_export",
    "open_picker",
    "open_runtime",
    "windows_of_session",
]

#: What ``runtime`` may be.
RUNTIMES = ("auto", "torch", "onnxruntime", "openvino", "tensorflow")

#: Runtimes for exported models, in order of preference where nothing was measured.
_EXPORTED = ("openvino", "onnxruntime")

#: What installs them.
_EXTRAS = {
    "torch": "torch",
    "openvino": "eqcctpro[openvino]",
    "onnxruntime": "eqcctpro[onnx]",
    "tensorflow": "eqcctpro[tensorflow]",
}

#: Windows of a job of which nothing is known: 200 stations, ten minutes, PhaseNet.
_USUAL_JOB = 10_000

#: A job of fewer windows is over before a first calibration is.
_TINY_JOB = 500

#: Workers that stay are taken to serve so many runs, so that loading hardly counts.
_RUNS_OF_SESSION = 20

#: Slices that a batch has for every thread, so that no thread waits for long at its end.
_SLICES_PER_THREAD = 2

#: Samples of one component that a GPU takes at once, and windows at most.
_GPU_BATCH_SAMPLES, _GPU_BATCH = 12_300_000, 2048

#: Largest layer of a network, in values for each sample of a component, and the share of a GPU's
#: free memory that a batch may take by it.
_LAYER_VALUES, _GPU_SHARE = 64, 0.5

_log = logging.getLogger("eqcctpro")


def open_picker(
    files: WeightFiles,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int | None = None,
    expected_windows: int | None = None,
    inter_threads: int | None = None,
    vram_mb: float | None = None,
    precision: str = "f32",
    slice_windows: int | Literal["adaptive"] | None = None,
) -> tuple[Picker, Runtime]:
    """Open weights for picking.

    Parameters
    ----------
    files : WeightFiles
        Which model, and where its weights are.
    runtime : {"auto", "torch", "onnxruntime", "openvino", "tensorflow"}
        What executes it; ``"auto"`` takes the runtime that is fastest for the job, but
        never TensorFlow, which runs EQCCT alone.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size : int, optional
        Windows in a batch; None for what was measured to be fast.
    threads : int, optional
        Threads of one call on a CPU; None for one a core.
    expected_windows : int, optional
        Size of the job, which decides how much a long loading time may cost.
    inter_threads : int, optional
        Operators that TensorFlow executes at a time.
    vram_mb : float, optional
        GPU memory that torch or TensorFlow may allocate, MB of 2**20 bytes.
    precision : {"f32", "tf32", "fp16", "bf16"}
        Arithmetic of the network; on a CPU f32 or OpenVINO's bf16.  Probabilities in bf16 differ
        by some hundredths.
    slice_windows : int or "adaptive", optional
        Windows that a thread takes at a time with an exported model; None for what serves
        large batches best, adaptive for batches of any size.

    Returns
    -------
    picker : Picker
    runtime : Runtime
        Its attribute ``reason`` says why it was chosen.

    Raises
    ------
    SettingsError
        If an argument is none of those above.
    RuntimeUnavailableError
        If the asked-for runtime or device is not here.
    ModelError
        If the weights cannot be loaded, or cannot be exported to the asked-for runtime.
    """
    _check(runtime, device, batch_size, threads, precision)
    if precision != "f32" and device == "cpu":
        return _open_reduced(files, runtime, batch_size, threads, precision, slice_windows)
    check_runtime(runtime, device, files.name, composed=bool(files.parts))
    if runtime == "tensorflow":
        return _open_tensorflow(files, device, batch_size, threads, inter_threads, vram_mb)
    if device != "cpu":
        why = f"the device is {device}"
        return _open_on_device(files, device, batch_size, why, vram_mb, precision)
    if runtime == "torch":
        return _open_torch(files, batch_size, threads, "it was asked for")
    if runtime != "auto":
        export = cached_export(files)
        chosen = open_runtime(
            export, runtime, batch_size=batch_size, threads=threads, slice_windows=slice_windows
        )
        return export.picker, _explained(export.picker, chosen, "it was asked for")
    installed = [kind for kind in _EXPORTED if find_spec(kind) is not None]
    if not installed:
        return _open_torch(files, batch_size, threads, "no other runtime is installed")
    try:
        export = cached_export(files)
    except (ExportError, RuntimeUnavailableError) as error:
        _log.warning("%s/%s runs on torch: %s", files.parent, files.child, error)
        return _open_torch(files, batch_size, threads, "the model was not exported")
    agreeing = [kind for kind in installed if export.agrees(kind)]
    kind, reason = _choose(export, agreeing, batch_size, threads, expected_windows)
    chosen = open_runtime(
        export, kind, batch_size=batch_size, threads=threads, slice_windows=slice_windows
    )
    return export.picker, _explained(export.picker, chosen, reason)


def needs_export(files: WeightFiles, runtime: str, device: str) -> bool:
    """True if :func:`open_picker` would have to export weights first, which takes long."""
    if device != "cpu" or runtime not in ("auto", *_EXPORTED):
        return False
    kinds = _EXPORTED if runtime == "auto" else (runtime,)
    installed = any(find_spec(kind) is not None for kind in kinds)
    return installed and complete_export(files) is None


def check_runtime(runtime: str, device: str, model: str, *, composed: bool) -> None:
    """Find out without loading anything whether a runtime can execute a model.

    Parameters
    ----------
    runtime, device : str
        As for :func:`open_picker`.
    model : str
        ``Parent/child``, for the message.
    composed : bool
        Whether the model is EQCCT, of several networks.

    Raises
    ------
    RuntimeUnavailableError
        If it cannot, or is not installed.
    """
    if runtime == "tensorflow" and not composed:
        raise RuntimeUnavailableError(
            f"the runtime tensorflow runs EQCCT only, not {model}",
            hint="choose the runtime auto",
        )
    if runtime in _EXPORTED and device != "cpu":
        raise RuntimeUnavailableError(
            f"the runtime {runtime} runs on the CPU only, not on {device}",
            hint="choose the runtime torch or auto",
        )
    if runtime in _EXTRAS:
        _require_installed(runtime)


def load_picker(files: WeightFiles) -> Picker:
    """Describe weights; from the cache where they were exported, else by loading them."""
    export = find_export(files)
    if export is not None:
        return export.picker
    from eqcctpro.models.loading import describe_model

    return describe_model(files)


def open_runtime(
    export: Export,
    kind: str,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    precision: str = "f32",
    slice_windows: int | Literal["adaptive"] | None = None,
) -> OnnxRuntime | OpenVinoRuntime:
    """Open an exported model on the CPU.

    Parameters
    ----------
    export : Export
        From :func:`eqcctpro.models.export.cached_export`.
    kind : {"onnxruntime", "openvino"}
    batch_size, threads : int, optional
        As for :func:`open_picker`.
    precision : str
        Of OpenVINO.
    slice_windows : int, optional
        As for :func:`open_picker`.
    """
    if kind in _EXPORTED:
        _require_installed(kind)
        if not export.agrees(kind):
            difference = export.differences.get(kind, float("nan"))
            raise ExportError(
                f"{export.picker.name} differs on {kind} by {difference:.1e} from torch",
                hint="choose another runtime",
            )
    size = batch_size or default_batch_size(export.picker, threads=threads)
    if kind == "onnxruntime":
        return OnnxRuntime(
            export.onnx_path, batch_size=size, threads=threads, slice_windows=slice_windows
        )
    if kind == "openvino":
        compiled: Path = cache_folder("compiled")
        return OpenVinoRuntime(
            export.onnx_path,
            batch_size=size,
            threads=threads,
            compiled_cache=compiled,
            precision=precision,
            slice_windows=slice_windows,
        )
    raise SettingsError(f"exported models do not run on {kind!r}", hint=f"known: {_EXPORTED}")


def default_batch_size(picker: Picker, device: str = "cpu", threads: int | None = None) -> int:
    """Windows in a batch: some slices for every thread, or what fills a GPU."""
    if device != "cpu":
        size = max(1, min(_GPU_BATCH_SAMPLES // picker.in_samples, _GPU_BATCH))
        return int(1 << (size.bit_length() - 1))
    slices = _SLICES_PER_THREAD * max(2, threads or available_cores())
    return slices * slice_size(picker.in_samples, MAX_SLICE)


def windows_of_session(windows: int) -> int:
    """The windows to expect where workers stay for further runs of so many.

    A job that is too small to measure runtimes for stays one: it is to give the same picks
    in a session as by itself.
    """
    return windows if windows <= _TINY_JOB else windows * _RUNS_OF_SESSION


def _check(
    runtime: str, device: str, batch_size: int | None, threads: int | None, precision: str
) -> None:
    if runtime not in RUNTIMES:
        raise SettingsError(
            f"runtime {runtime!r} is not known",
            hint=f"choose one of {', '.join(RUNTIMES)}",
        )
    try:
        parse_device(device)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if precision not in get_args(Precision):
        raise SettingsError(f"precision {precision!r} is not known")
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} must be at least 1, not {value}")


def _require_installed(kind: str) -> None:
    """Raise RuntimeUnavailableError, before anything is exported for nothing."""
    if find_spec(kind) is None:
        raise RuntimeUnavailableError(
            f"the runtime {kind} is not installed", hint=f"pip install '{_EXTRAS[kind]}'"
        )


def _choose(
    export: Export,
    installed: list[str],
    batch_size: int | None,
    threads: int | None,
    expected_windows: int | None,
) -> tuple[str, str]:
    """Name of a runtime, and why."""
    if len(installed) == 1:
        return installed[0], "no other runtime for exported models is installed and agrees"
    job = _USUAL_JOB if expected_windows is None else expected_windows
    if job <= _TINY_JOB:
        # Whatever the cache holds: the same job gives the same picks to the last bit.
        return installed[0], f"usually the faster one; {job} windows are too few to measure it"
    openers: dict[str, Callable[[], Runtime]] = {}
    for kind in installed:
        openers[kind] = _opener(export, kind, batch_size, threads)
    costs = calibrated(export, openers, threads)
    best = fastest(costs, job)
    expected = ", ".join(f"{kind} {costs[kind].of(job):.2f} s" for kind in sorted(costs))
    return best, f"expected for {job} windows: {expected}"


def _opener(
    export: Export, kind: str, batch_size: int | None, threads: int | None
) -> Callable[[], Runtime]:
    return lambda: open_runtime(export, kind, batch_size=batch_size, threads=threads)


def _open_reduced(
    files: WeightFiles,
    runtime: str,
    batch_size: int | None,
    threads: int | None,
    precision: str,
    slice_windows: int | Literal["adaptive"] | None,
) -> tuple[Picker, Runtime]:
    """Open with shorter numbers, which OpenVINO alone offers on a CPU."""
    if runtime not in ("auto", "openvino") or precision != "bf16":
        raise RuntimeUnavailableError(
            f"precision {precision} on a CPU: only openvino has one but f32, which is bf16, and "
            f"the runtime is {runtime}",
            hint="choose the precision f32",
        )
    _require_installed("openvino")
    export = cached_export(files)
    chosen = open_runtime(
        export,
        "openvino",
        batch_size=batch_size,
        threads=threads,
        precision=precision,
        slice_windows=slice_windows,
    )
    return export.picker, _explained(export.picker, chosen, f"{precision} was asked for")


def _open_torch(
    files: WeightFiles, batch_size: int | None, threads: int | None, reason: str
) -> tuple[Picker, Runtime]:
    _require_installed("torch")
    from eqcctpro.models.loading import curve_module, load_model
    from eqcctpro.runtimes.torch_runtime import TorchRuntime

    picker, module = load_model(files)
    size = batch_size or default_batch_size(picker, threads=threads)
    chosen = TorchRuntime(curve_module(module), batch_size=size, threads=threads)
    return picker, _explained(picker, chosen, reason)


def _open_on_device(
    files: WeightFiles,
    device: str,
    batch_size: int | None,
    reason: str,
    vram_mb: float | None,
    precision: str,
) -> tuple[Picker, Runtime]:
    _require_installed("torch")
    found = resolve(device)
    from eqcctpro.models.exportable import exportable
    from eqcctpro.models.loading import load_model
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    picker, module = load_model(files)
    chosen = DeviceRuntime(
        exportable(module),
        components=len(picker.components),
        in_samples=picker.in_samples,
        batch_size=batch_size or _batch_that_fits(picker, found, vram_mb),
        device=found.text,
        vram_mb=vram_mb,
        precision=precision,
    )
    return picker, _explained(picker, chosen, reason)


def _batch_that_fits(picker: Picker, device: Device, vram_mb: float | None) -> int:
    """Windows in a batch on a GPU, fewer where little of its memory is free."""
    size = default_batch_size(picker, device.text)
    free = [gpu.free_mb for gpu in read_gpus()[0] if gpu.index == device.index]
    room_mb = min([*free, *([] if vram_mb is None else [vram_mb])], default=None)
    if room_mb is None:
        return size
    window_mb = 4 * _LAYER_VALUES * picker.in_samples / 2**20
    while size > 1 and size * window_mb > _GPU_SHARE * room_mb:
        size //= 2
    return size


def _open_tensorflow(
    files: WeightFiles,
    device: str,
    batch_size: int | None,
    threads: int | None,
    inter_threads: int | None,
    vram_mb: float | None,
) -> tuple[Picker, Runtime]:
    from eqcctpro.models.eqcct import describe_eqcct
    from eqcctpro.runtimes.tensorflow_runtime import TensorFlowRuntime

    picker = describe_eqcct(files)
    size = batch_size or default_batch_size(picker, device, threads)
    chosen = TensorFlowRuntime(
        files,
        batch_size=size,
        device=device,
        threads=threads,
        inter_threads=inter_threads,
        vram_mb=vram_mb,
    )
    return picker, _explained(picker, chosen, "it was asked for")


def _explained(
    picker: Picker,
    runtime: OnnxRuntime | OpenVinoRuntime | TorchRuntime | TensorFlowRuntime | DeviceRuntime,
    reason: str,
) -> Runtime:
    runtime.reason = reason
    _log.info(
        "%s runs on %s (%s), %d windows a batch: %s",
        picker.name,
        runtime.kind,
        runtime.device,
        runtime.batch_size,
        reason,
    )
    return runtime
