"""Starting, joining and leaving Ray.

A process has one connection to Ray.  Runs in several threads share it: the first one that needs
Ray connects, and the last one to finish disconnects.  A Ray to which the program that calls has
connected itself is used as it is, and left running.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.private_ray import private_ray
from eqcctpro.orchestration.ray_folders import (
    ray_folder,
    sessions_removed,
    usual_ray_folder,
    writable_token,
)
from eqcctpro.orchestration.ray_server import servers_required
from eqcctpro.orchestration.ray_signals import shut_down, sigterm_kept
from eqcctpro.resources.devices import only_visible
from eqcctpro.signals_after import signals_after

__all__ = ["is_own_ray", "ray_session", "shares_ray"]

# Bundles and pick tables are small: the smallest store that Ray accepts with some room.
OBJECT_STORE_BYTES = 256 * 2**20

ANSWER_SECONDS = 5.0

# What Ray's logs of a run take, with some room.
LEAST_SPACE_BYTES = 20 * 2**20

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class _Wanted:
    """Ray resources that a run asks for; see `ray_session`."""

    address: str | None
    cpus: int
    gpu_ids: tuple[int, ...]
    temp_dir: Path | None


@dataclass
class _Connection:
    """The connection of this process.

    Attributes
    ----------
    lock : Lock
        Held while it is opened or closed.
    users : int
        Runs that use it now.
    opened : _Wanted or None
        What it was opened for; None where it is not open, or somebody else's.
    session : str
        Ray's name for what was opened.
    process : int
        The process that has used Ray.
    stack : ExitStack
        What is undone at the end.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    opened: _Wanted | None = None
    session: str = ""
    process: int | None = None
    stack: ExitStack = field(default_factory=ExitStack)


_connection = _Connection()


def is_own_ray() -> bool:
    """True if a run of this process started the connected Ray on this machine."""
    return _connection.opened is not None and _connection.opened.address is None


def shares_ray() -> bool:
    """True if other runs of this process use the connected Ray, too."""
    return _connection.users > 1


@contextmanager
def ray_session(
    *,
    address: str | None,
    cpus: int,
    gpu_ids: Sequence[int],
    temp_dir: Path | None,
) -> Iterator[Any]:
    """The `ray` module, connected; the last session that is left disconnects.

    A Ray to which this process was connected before all sessions stays.

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

    Raises
    ------
    SettingsError
        The folder cannot be used.
    WorkerError
        Ray is not installed, cannot start, or the cluster does not answer; this process has
        a Ray that is not the one that is wanted, or was forked from one that had used Ray.
    """
    wanted = _Wanted(address, cpus, tuple(gpu_ids), temp_dir)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with signals_after():
            import ray
    except ImportError as error:
        raise WorkerError(
            "the modes modelactor and ripper need Ray, which is not installed",
            hint="pip install ray, or use --mode local",
        ) from error
    _enter(ray, wanted)
    try:
        yield ray
    finally:
        _leave(ray)


def _enter(ray: Any, wanted: _Wanted) -> None:
    """Connect, or share the connection that is there."""
    connection = _connection
    _refuse_fork(ray)
    with connection.lock:
        connection.process = os.getpid()
        if connection.opened is not None and _session_name(ray) != connection.session:
            connection.opened = None  # other code has shut down the Ray that was opened here
            connection.stack.close()
        if not ray.is_initialized():
            with ExitStack() as stack:
                _connect(ray, wanted, stack)
                connection.stack = stack.pop_all()
            connection.opened, connection.session = wanted, _session_name(ray)
        elif connection.opened is not None:
            _require_alike(connection.opened, wanted)
        else:
            _require_same_ray(ray, wanted)
        connection.users += 1


def _leave(ray: Any) -> None:
    connection = _connection
    with connection.lock:
        connection.users -= 1
        if connection.users or connection.opened is None:
            return
        connection.opened = None
        try:
            if _session_name(ray) == connection.session:
                shut_down(ray)
        finally:
            connection.stack.close()


def _session_name(ray: Any) -> str:
    """Ray's name for what this process is connected to; empty if it is not."""
    if not ray.is_initialized():
        return ""
    node = getattr(ray._private.worker, "_global_node", None)
    return str(getattr(node, "session_name", "connected"))


def _refuse_fork(ray: Any) -> None:
    """Refuse a process that was forked after Ray had been used: Ray's threads are not in it.

    Raises
    ------
    WorkerError
    """
    worker = ray._private.worker.global_worker
    listener = getattr(worker, "listener_thread", None)
    without_threads = ray.is_initialized() and listener is not None and not listener.is_alive()
    if without_threads or _connection.process not in (None, os.getpid()):
        raise WorkerError(
            "this process was forked from one that had used Ray, and Ray does not work in it",
            hint="start processes with multiprocessing.get_context('spawn'), or use mode='local'",
        )


def _require_alike(opened: _Wanted, wanted: _Wanted) -> None:
    """Refuse a run that cannot share what another run of this process has opened.

    Raises
    ------
    WorkerError
    """
    other = "another run of this process"
    hint = "one after the other they work, or in processes of their own"
    if opened.address != wanted.address:
        there = f"the Ray cluster at {opened.address}" if opened.address else "a Ray of its own"
        raise WorkerError(
            f"address={wanted.address!r}: {other} uses {there}, and a process has one Ray",
            hint=hint,
        )
    if wanted.temp_dir is not None and wanted.temp_dir != opened.temp_dir:
        raise WorkerError(
            f"tmp_dir={str(wanted.temp_dir)!r}: {other} has started Ray in "
            f"{opened.temp_dir or 'the usual folder'}",
            hint=hint + ", or leave tmp_dir out",
        )
    if wanted.address is None and wanted.gpu_ids and wanted.gpu_ids != opened.gpu_ids:
        raise WorkerError(
            f"GPUs {list(wanted.gpu_ids)}: {other} has started Ray with "
            f"GPUs {list(opened.gpu_ids) or 'none'}",
            hint=hint,
        )


def _require_same_ray(ray: Any, wanted: _Wanted) -> None:
    """Refuse a run that asks for another Ray than the one that the program has.

    Raises
    ------
    WorkerError
    """
    there = "this process is already connected to Ray"
    hint = "call ray.shutdown() before the run, or leave {} out"
    if wanted.address is not None and not _is_at(ray, wanted.address):
        raise WorkerError(
            f"address={wanted.address!r}: {there}, at {_gcs_address(ray)}",
            hint=hint.format("address"),
        )
    if wanted.temp_dir is not None:
        node = getattr(ray._private.worker, "_global_node", None)
        used = Path(node.get_temp_dir_path()) if node is not None else Path()
        if used.resolve() != wanted.temp_dir.resolve():
            raise WorkerError(
                f"tmp_dir={str(wanted.temp_dir)!r}: {there}, with the folder {used}",
                hint=hint.format("tmp_dir"),
            )


def _gcs_address(ray: Any) -> str:
    return str(ray.get_runtime_context().gcs_address)


def _is_at(ray: Any, address: str) -> bool:
    """True if this process is connected to the cluster at an address."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return address == "auto"  # the one that is there
    its_host, _, its_port = _gcs_address(ray).rpartition(":")
    if port != its_port:
        return False
    try:
        named = {info[4][0] for info in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return False
    return its_host in named or (named <= {"127.0.0.1", "::1"} and _is_here(its_host))


def _is_here(host: str) -> bool:
    """True if an IP address belongs to this machine."""
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _connect(ray: Any, wanted: _Wanted, stack: ExitStack) -> None:
    """Join or start Ray; clean-up is registered on the stack."""
    # Ray says on every start that its token authentication is on, and in threads that SIGTERM
    # is not its own, which needs no saying.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    stack.enter_context(_errors_only(logging.getLogger("ray._private.worker")))
    address, gpu_ids = wanted.address, wanted.gpu_ids
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
    if address is not None:
        _require_answer(address)
    else:
        _require_loopback()
    folder = None
    if address is None:
        folder = stack.enter_context(
            usual_ray_folder() if wanted.temp_dir is None else ray_folder(wanted.temp_dir)
        )
        _require_space(Path(folder))
        stack.enter_context(sessions_removed(Path(folder)))
    try:
        with sigterm_kept(ray):
            if address is not None:
                ray.init(address=address, **common)
                return
            stack.enter_context(writable_token())
            # Ray's processes inherit which GPUs they see; this one keeps what it sees.
            with private_ray(), servers_required(ray), only_visible(gpu_ids):
                # By default Ray would join whatever cluster was last started on this machine.
                ray.init(
                    address="local",
                    num_cpus=wanted.cpus,
                    num_gpus=len(gpu_ids),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                    **common,
                )
    except WorkerError:
        raise
    except Exception as error:  # Ray raises many kinds; all mean that there is no cluster
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise WorkerError(
            f"cannot {where}: {_in_words(error)}",
            hint="check that the cluster runs and has the same Ray and Python version"
            if address
            else "use mode local, or choose another folder for Ray (tmp_dir, ray_temp_dir) on a "
            "local disk with free space",
        ) from error


def _in_words(error: Exception) -> str:
    """Message of an error in one line, preceded by its class unless that is a generic one."""
    words = " ".join(str(error).split())
    plain = type(error) in (Exception, RuntimeError)
    return words if plain else f"{type(error).__name__}: {words}"


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    earlier = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(earlier)


def _require_loopback() -> None:
    """Refuse a machine without a loopback interface, where Ray would wait in silence.

    Raises
    ------
    WorkerError
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise WorkerError(
            "Ray cannot start on this machine: its processes cannot reach each other at 127.0.0.1 "
            f"({error.strerror or error})",
            hint="bring the loopback interface up (ip link set lo up), or use --mode local",
        ) from error


def _require_space(folder: Path) -> None:
    """Refuse a full file system, on which Ray would try to start for a minute.

    Raises
    ------
    WorkerError
    """
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE_BYTES:
        raise WorkerError(
            f"Ray cannot start on this machine: {folder.resolve()}, where it keeps its sockets "
            f"and logs, has {free // 2**20} MB left",
            hint="make room there, choose another folder (TMPDIR; tmp_dir, ray_temp_dir), or use "
            "--mode local",
        )


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
