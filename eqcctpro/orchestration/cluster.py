"""Starting, joining and leaving Ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.private_ray import private_ray

__all__ = ["ray_session"]

# Bundles and pick tables are small: the smallest store that Ray accepts with some room.
OBJECT_STORE_BYTES = 256 * 2**20

ANSWER_SECONDS = 5.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(
    *,
    address: str | None,
    cpus: int,
    gpu_ids: Sequence[int],
    temp_dir: Path | None,
    sheltered: bool = False,
) -> Iterator[Any]:
    """The `ray` module, connected; disconnected at the end only if this call connected.

    Parameters
    ----------
    address : str or None
        A running cluster to join; None starts Ray on this machine.
    cpus : int
        Cores that a Ray that is started here may use.
    gpu_ids : sequence of int
        CUDA devices that it may use.
    temp_dir : Path or None
        Ray's folder for sockets and logs.
    sheltered : bool
        SIGTERM, which many send to all processes of a group, ends none of a Ray that is started
        here, so that work can be finished first.  Ray itself then takes 4 s longer to end.

    Raises
    ------
    WorkerError
        Ray is not installed, cannot start, or the cluster does not answer.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise WorkerError(
            "the modes modelactor and ripper need Ray, which is not installed",
            hint="pip install ray, or use --mode local",
        ) from error
    if ray.is_initialized():
        yield ray
        return
    with _sigterm_blocked() if sheltered else nullcontext():
        _connect(ray, address=address, cpus=cpus, gpu_ids=gpu_ids, temp_dir=temp_dir)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(
    ray: Any, *, address: str | None, cpus: int, gpu_ids: Sequence[int], temp_dir: Path | None
) -> None:
    # Ray says on every start that its token authentication is on, which needs no saying.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
    if address is not None:
        _require_answer(address)
    try:
        if address is not None:
            ray.init(address=address, **common)
            return
        if gpu_ids:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpu_ids))
        with private_ray():
            # By default Ray would join whatever cluster was last started on this machine.
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=len(gpu_ids),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=None if temp_dir is None else str(temp_dir.resolve()),
                **common,
            )
    except Exception as error:  # Ray raises many kinds; all mean that there is no cluster
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise WorkerError(
            f"cannot {where}: {type(error).__name__}: {error}",
            hint="check that the cluster runs and has the same Ray and Python version"
            if address
            else "use --mode local, or choose another ray_temp_dir (a short path)",
        ) from error


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Have processes that are started meanwhile not heed SIGTERM: they inherit what is blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _require_answer(address: str) -> None:
    """Refuse an address at which nothing answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", or something that only Ray understands
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise WorkerError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            hint="check the address, and that the cluster runs",
        ) from error
