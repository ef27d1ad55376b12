"""Execution of EQCCT by TensorFlow, the framework it was published for."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eqcctpro.errors import RuntimeUnavailableError
from eqcctpro.models.eqcct import BRANCHES, IN_SAMPLES, branch_state
from eqcctpro.runtimes.base import Float32, Runtime

if TYPE_CHECKING:
    from eqcctpro.models.weight_files import WeightFiles

__all__ = ["TensorFlowRuntime"]

#: `eqcctpro.models.curves.RESOLUTION`, which is not imported: that takes torch.
_RESOLUTION = 2.0**-22
_TAPER = 6

_log = logging.getLogger("eqcctpro")


class TensorFlowRuntime(Runtime):
    """Runs EQCCT's Keras networks.

    Parameters
    ----------
    files : WeightFiles
        As :func:`eqcctpro.models.eqcct.find_eqcct` returns it.
    batch_size : int
        Windows a call takes at most.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    threads, inter_threads : int, optional
        Threads within an operator, and operators at a time; None leaves the choice to
        TensorFlow.  They are the process's: the first runtime of a process sets them.
    vram_mb : float, optional
        GPU memory that this process may take, MB of 2**20 bytes; None lets it grow.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If TensorFlow is missing or cannot use the device.
    WeightsError
        If the weights cannot be loaded.
    """

    kind: ClassVar[str] = "tensorflow"

    def __init__(
        self,
        files: WeightFiles,
        *,
        batch_size: int,
        device: str = "cpu",
        threads: int | None = None,
        inter_threads: int | None = None,
        vram_mb: float | None = None,
    ) -> None:
        tf = _tensorflow()
        self.device = device
        self.batch_size = batch_size
        self.reason = ""
        _set_threads(tf, threads, inter_threads)
        place = _set_device(tf, device, vram_mb)
        with tf.device(place):
            networks = _networks(files)
        signature = [tf.TensorSpec((None, 3, IN_SAMPLES), tf.float32)]

        def curves(windows: Any) -> Any:
            with tf.device(place):
                prepared = _normalised(tf, windows, files.variant)
                probabilities = [network(prepared, training=False) for network in networks]
                return tf.concat(probabilities, axis=2)

        self._curves: Any = tf.function(curves, input_signature=signature)
        self._tf = tf

    def predict(self, windows: Float32) -> Float32:
        """Execute both networks on one batch; see :meth:`Runtime.predict`."""
        if self._curves is None:
            raise RuntimeError("this runtime was closed")
        try:
            found: Float32 = self._curves(self._tf.constant(windows)).numpy()
        except self._tf.errors.ResourceExhaustedError as error:
            raise RuntimeUnavailableError(
                f"TensorFlow ran out of memory on {self.device} with {len(windows)} windows",
                hint="choose a smaller batch_size, or a larger vram_mb",
            ) from error
        return found

    def close(self) -> None:
        """Release the networks; TensorFlow keeps its threads until the process ends."""
        self._curves = None


def _tensorflow() -> Any:
    # Read when TensorFlow is loaded: no banner, and errors only.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keras takes its backend from here, or from a file of the user's.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow as tf
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"the runtime tensorflow is not installed ({error})",
            hint="pip install 'eqcctpro[tensorflow]'",
        ) from error
    return tf


def _set_threads(tf: Any, threads: int | None, inter_threads: int | None) -> None:
    threading = tf.config.threading
    wanted = (threads or 0, inter_threads or 0)
    current = (
        threading.get_intra_op_parallelism_threads(),
        threading.get_inter_op_parallelism_threads(),
    )
    if wanted == current:
        return
    try:
        threading.set_intra_op_parallelism_threads(wanted[0])
        threading.set_inter_op_parallelism_threads(wanted[1])
    except RuntimeError:
        _log.warning(
            "TensorFlow already runs in this process with intra_threads %d and inter_threads %d "
            "(0: its own choice); it cannot change to %d and %d",
            *current,
            *wanted,
        )


def _set_device(tf: Any, device: str, vram_mb: float | None) -> str:
    """Show TensorFlow the one device that is asked for; returns its name for it."""
    if device == "cpu":
        _set_visible(tf, [])
        return "/CPU:0"
    gpus = tf.config.list_physical_devices("GPU")
    number = int(device.partition(":")[2] or 0)
    if number >= len(gpus):
        raise RuntimeUnavailableError(
            f"TensorFlow {tf.__version__} finds {len(gpus)} GPUs, and not {device}",
            hint="pip install 'tensorflow[and-cuda]', or use the device cpu",
        )
    gpu = gpus[number]
    _set_visible(tf, [gpu])
    try:
        if vram_mb is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=vram_mb)
            tf.config.set_logical_device_configuration(gpu, [limit])
    except (RuntimeError, ValueError) as error:
        raise RuntimeUnavailableError(
            f"TensorFlow cannot limit the memory of {device}: {error}",
            hint="TensorFlow already runs in this process; use the mode modelactor or ripper",
        ) from error
    return "/GPU:0"


def _set_visible(tf: Any, gpus: list[Any]) -> None:
    try:
        if tf.config.get_visible_devices("GPU") != gpus:
            tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:
        # Running already, with other devices: the CPU is there in any case.
        if gpus:
            raise RuntimeUnavailableError(
                f"TensorFlow already runs in this process with other devices: {error}",
                hint="use the mode modelactor or ripper",
            ) from error


def _networks(files: WeightFiles) -> list[Any]:
    from eqcctpro.models.eqcct_keras import build_network

    return [
        build_network(branch, branch_state(part))
        for branch, part in zip(BRANCHES, files.parts, strict=True)
    ]


def _normalised(tf: Any, windows: Any, variant: str) -> Any:
    """As :class:`eqcctpro.models.eqcct_curves.EqcctCurves` does it; channels last."""
    mean = tf.reduce_mean(windows, axis=-1, keepdims=True)
    centred = windows - mean
    centred -= tf.reduce_mean(centred, axis=-1, keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True))
    highest = tf.reduce_max(windows, axis=-1, keepdims=True)
    lowest = tf.reduce_min(windows, axis=-1, keepdims=True)
    largest = tf.maximum(tf.abs(highest), tf.abs(lowest))
    varies = tf.cast(highest - lowest > _RESOLUTION * largest, tf.float32)
    if variant == "eqcctpro":
        scaled = centred * (varies / (deviation + (1 - varies)))
    else:
        square = tf.reduce_mean(varies * tf.square(deviation), axis=1, keepdims=True)
        count = 3 * IN_SAMPLES
        overall = tf.sqrt(square * (count / (count - 1)))
        scaled = centred * (varies / (overall + 1e-10)) * _taper()
    return tf.transpose(scaled, (0, 2, 1))


def _taper() -> Float32:
    ramp = 0.5 * (1 + np.cos(np.linspace(np.pi, 2 * np.pi, _TAPER)))
    taper = np.ones(IN_SAMPLES, dtype=np.float32)
    taper[:_TAPER] *= ramp
    taper[-_TAPER:] *= ramp[::-1]
    return taper
