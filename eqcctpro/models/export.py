"""Export of models to ONNX into a cache that can be read without torch and SeisBench.

An export is a folder ``exports/<key>/`` with ``model.onnx``, ``picker.json`` and
``export.json``.  Its key is a hash of the weights, their metadata, the class and the
format below, so that an export is never used for other weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata as packages
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import ExportError, RuntimeUnavailableError
from eqcctpro.models.cache import cache_folder
from eqcctpro.models.openvino_import import import_openvino
from eqcctpro.models.picker import Picker

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

    from eqcctpro.models.eqcct_curves import EqcctCurves
    from eqcctpro.models.weight_files import WeightFiles

__all__ = [
    "Export",
    "cached_export",
    "complete_export",
    "export_key",
    "export_onnx",
    "find_export",
    "trial_windows",
]

#: Part of every key.  Raise it whenever the exported graph or a file's content changes.
FORMAT = 10

_tracing = threading.Lock()

#: Largest difference of a probability between torch and an exported graph.
TOLERANCE = 1e-5

OPSET = 17

_log = logging.getLogger("eqcctpro")

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Export:
    """An exported model in the cache.

    Attributes
    ----------
    key : str
        Name of its folder.
    onnx_path : pathlib.Path
        Windows ``(n, components, in_samples)`` in counts to curves
        ``(n, out_samples, labels)``, both float32, any ``n``.
    picker : Picker
        Description of the model.
    differences : dict
        Largest difference of a probability to torch, of each runtime that was installed when
        the export was made.
    """

    key: str
    onnx_path: Path
    picker: Picker
    differences: dict[str, float]

    def agrees(self, runtime: str) -> bool:
        """True if a runtime was compared with torch and its curves agree within `TOLERANCE`."""
        return self.differences.get(runtime, float("inf")) <= TOLERANCE


def export_key(files: WeightFiles) -> str:
    """Name of the cache folder for weights."""
    paths = [part.metadata_path for part in files.single_files]
    described = b"".join(path.read_bytes() for path in paths if path is not None)
    parts = [files.parent, files.sha256, hashlib.sha256(described).hexdigest(), str(FORMAT)]
    if files.variant:
        parts.append(files.variant)
    parts += [repr(part.described) for part in files.single_files if part.described]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def find_export(files: WeightFiles) -> Export | None:
    """Find an export in the cache, or None; imports neither torch nor SeisBench."""
    key = export_key(files)
    return _read_export(cache_folder("exports") / key, key, files)


def complete_export(files: WeightFiles) -> Export | None:
    """An export from the cache that was compared on all runtimes that are installed, or None."""
    found = find_export(files)
    if found is None or not _installed_runners() <= set(found.differences):
        return None
    return found


def cached_export(files: WeightFiles) -> Export:
    """Return an export from the cache, after making it if necessary.

    Several processes may request the same export at once.  An export is made again if a
    runtime has been installed since then.

    Raises
    ------
    ExportError
        If the model cannot be exported, or its export disagrees with torch everywhere.
    RuntimeUnavailableError
        If a package that the export needs is missing.
    ModelError
        If the weights cannot be loaded.
    """
    found = complete_export(files)
    if found is not None:
        return found
    from eqcctpro.models.loading import load_model

    key = export_key(files)
    picker, module = load_model(files)
    root = cache_folder("exports")
    _log.info("exporting %s into %s", picker.name, root / key)
    building = Path(tempfile.mkdtemp(dir=root, prefix=f".{key}."))
    try:
        differences = export_onnx(module, picker, building / "model.onnx")
        (building / "picker.json").write_text(picker.to_json(), encoding="utf-8")
        record = _record(files, building / "model.onnx", differences)
        (building / "export.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        _publish(building, root / key, files)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    made = _read_export(root / key, key, files)
    if made is None:
        raise ExportError(
            f"{picker.name}: the export in {root / key} vanished while it was written",
            hint="does something clean the cache? EQCCTPRO_CACHE names another folder",
        )
    return made


def export_onnx(
    module: WaveformModel | EqcctCurves, picker: Picker, path: Path
) -> dict[str, float]:
    """Write a model as ONNX and compare it with torch.

    Parameters
    ----------
    module : seisbench.models.WaveformModel or EqcctCurves
        In evaluation mode, on the CPU; not modified.
    picker : Picker
        As :func:`eqcctpro.models.loading.load_model` returns it.
    path : pathlib.Path
        File to write.

    Returns
    -------
    dict
        Largest difference of a probability to torch for each installed runtime.

    Raises
    ------
    ExportError
        If the model cannot be exported, or no runtime stays within 1e-5 of torch.
    """
    for package in ("onnx", "torch"):
        if find_spec(package) is None:
            raise RuntimeUnavailableError(
                f"exporting {picker.name} takes the package {package}",
                hint="pip install 'eqcctpro[onnx]', or choose the torch runtime",
            )
    _trace(module, picker, path)
    windows = trial_windows(len(picker.components), picker.in_samples)
    if picker.features is not None:
        # Features are positive and of the order of one, but for gaps.
        largest = np.abs(windows).max(axis=-1, keepdims=True)
        windows = np.log10(1 + 30 * np.abs(windows) / np.maximum(largest, 1))
    reference = _run_torch(module, windows)
    differences = {
        package: _difference(_RUNNERS[package](path, windows), reference)
        for package in sorted(_installed_runners())
    }
    if not differences:
        raise RuntimeUnavailableError(
            f"nothing is here to check the export of {picker.name} with",
            hint="pip install 'eqcctpro[onnx]' or 'eqcctpro[openvino]'",
        )
    found = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    if not min(differences.values()) <= TOLERANCE:
        raise ExportError(
            f"{picker.name}: exported curves differ from torch by {found} (allowed {TOLERANCE:g})",
            hint="use the torch runtime for this model",
        )
    if not max(differences.values()) <= TOLERANCE:
        _log.warning("%s does not run on every runtime: differences %s", picker.name, found)
    return differences


def trial_windows(components: int, samples: int) -> Float32:
    """Synthetic windows for comparing runtimes: events in noise, at many scales and offsets.

    Parameters
    ----------
    components, samples : int
        Shape of a window.

    Returns
    -------
    ndarray of float32, shape (12, components, samples)
        Amplitudes from 30 to 1e6 counts, offsets up to 20 times the amplitude; the last
        two windows contain a gap and only zeros.
    """
    random = np.random.default_rng(20)
    scales = np.geomspace(30, 1e6, 12)
    time = np.arange(samples)
    windows = random.standard_normal((12, components, samples))
    for window, start in zip(windows, random.uniform(0.1, 0.8, 12) * samples, strict=True):
        for delay, strength in ((0, 10), (0.07 * samples, 25)):
            since = np.maximum(time - start - delay, 0)
            envelope = (since > 0) * np.exp(-since / (0.05 * samples))
            phases = random.uniform(0, 6, (components, 1))
            window += strength * envelope * np.sin(0.35 * since + phases)
    windows += random.uniform(-20, 20, (12, components, 1))
    windows *= scales[:, None, None]
    windows[-2, :, samples // 2 :] = 0
    windows[-1] = 0
    return windows.astype(np.float32)


def _trace(module: WaveformModel | EqcctCurves, picker: Picker, path: Path) -> None:
    """Write the rewritten model's graph to ``path``."""
    import onnx
    import torch

    from eqcctpro.models.exportable import exportable
    from eqcctpro.models.lstm import write_out_recurrences

    example = torch.randn(2, len(picker.components), picker.in_samples)
    try:
        # Neither torch's tracer nor the filters of warnings are thread-safe.
        with _tracing, warnings.catch_warnings(), torch.no_grad():
            # The tracer warns on every shape that it takes as fixed, which is intended.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                exportable(module),
                (example,),
                str(path),
                input_names=["windows"],
                output_names=["curves"],
                dynamic_axes={"windows": {0: "n"}, "curves": {0: "n"}},
                opset_version=OPSET,
                # Keeps LSTMs whole and takes a second; the newer exporter takes ten.
                dynamo=False,
            )
        model = onnx.load(str(path))
        write_out_recurrences(model)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
    except Exception as error:  # torch and onnx raise whatever their stages raise
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"{picker.name} cannot be exported to ONNX: "
            f"{type(error).__name__}: {reason[0] if reason else ''}",
            hint="use the torch runtime for this model",
        ) from error


def _run_torch(module: WaveformModel | EqcctCurves, windows: Float32) -> Float32:
    import torch

    from eqcctpro.models.loading import curve_module

    curves: Float32 = curve_module(module)(torch.from_numpy(windows)).numpy()
    return curves


def _run_onnxruntime(path: Path, windows: Float32) -> Float32:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    curves: Float32 = session.run(None, {"windows": windows})[0]
    return curves


def _run_openvino(path: Path, windows: Float32) -> Float32:
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(str(path))
    # With a fixed batch size, as in a run: other optimisations apply to it.
    size = next(size for size in (4, 3, 2, 1) if len(windows) % size == 0)
    model.reshape([size, *windows.shape[1:]])
    compiled = core.compile_model(model, "CPU", settings)
    slices = [windows[first : first + size] for first in range(0, len(windows), size)]
    return np.concatenate([np.array(compiled([part])[0]) for part in slices])


_RUNNERS: dict[str, Callable[[Path, Float32], Float32]] = {
    "onnxruntime": _run_onnxruntime,
    "openvino": _run_openvino,
}


def _installed_runners() -> set[str]:
    return {package for package in _RUNNERS if find_spec(package) is not None}


def _difference(curves: Float32, reference: Float32) -> float:
    """Largest absolute difference; infinite where shapes or finiteness disagree."""
    if curves.shape != reference.shape or not np.isfinite(curves).all():
        return float("inf")
    return float(np.abs(curves - reference).max())


def _record(files: WeightFiles, onnx_path: Path, differences: dict[str, float]) -> dict[str, Any]:
    used = ("torch", "seisbench", "onnx", *differences)
    return {
        "format": FORMAT,
        "model": files.parent,
        "weights_sha256": files.sha256,
        "onnx_sha256": _sha256(onnx_path),
        "versions": {package: packages.version(package) for package in used},
        "max_difference": differences,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_export(folder: Path, key: str, files: WeightFiles) -> Export | None:
    """The export in ``folder``, or None if it is missing, damaged or of another format."""
    try:
        record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        picker = Picker.from_json((folder / "picker.json").read_text(encoding="utf-8"))
        intact = record["onnx_sha256"] == _sha256(folder / "model.onnx")
        differences = {str(k): float(v) for k, v in record["max_difference"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("export in %s cannot be used: %s", folder, error)
        return None
    if not intact:
        _log.warning("export in %s is damaged", folder)
        return None
    # The same weights may have another name than when they were exported.
    picker = replace(picker, model=files.parent, weights=files.child)
    return Export(key, folder / "model.onnx", picker, differences)


def _publish(building: Path, target: Path, files: WeightFiles) -> None:
    """Move a finished folder into place; an export of a concurrent process is kept."""
    for _ in range(3):
        try:
            building.rename(target)
            return
        except OSError:
            there = _read_export(target, target.name, files)
            if there is not None and _installed_runners() <= set(there.differences):
                return
            # A damaged or outdated export is in the way: rename and remove it.
            aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".aside."))
            try:
                target.rename(aside / target.name)
            except FileNotFoundError:
                pass
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    raise ExportError(
        f"{target} cannot be replaced", hint="remove it, or point EQCCTPRO_CACHE elsewhere"
    )
