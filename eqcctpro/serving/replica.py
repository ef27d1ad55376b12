"""Start and shutdown of a replica of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eqcctpro.errors import EQCCTProError, WorkerError
from eqcctpro.serving.logs import set_up_logs
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.state import StateFolder

__all__ = ["Replica"]


class Replica:
    """Start, health and end of a replica, for the processes that watch the service.

    Parameters
    ----------
    settings : ServeSettings
    """

    def __init__(self, settings: ServeSettings) -> None:
        _listen_where_ray_does()
        self.state = StateFolder.of_environment()
        self.logs = set_up_logs(settings.logs, self.state.log_socket if self.state else None)
        if self.state is not None:
            self.state.note_start()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Record the reason if the start of the replica fails."""
        try:
            yield
        except Exception as error:
            if self.state is not None:
                unknown = WorkerError(f"a replica failed: {type(error).__name__}: {error}")
                self.state.note_failure(error if isinstance(error, EQCCTProError) else unknown)
            self.logs.flush()
            raise

    def end(self, problem: str | None = None) -> None:
        """Record the end of the replica; with a problem if that is the reason."""
        if self.state is not None:
            if problem is None:
                self.state.note_end()
            else:
                self.state.note_break()
        self.logs.flush()


def _listen_where_ray_does() -> None:
    """Have Ray Serve's server for other replicas listen at the address of this node alone.

    It would listen on all interfaces, whatever Ray itself was told.
    """
    from ray.serve._private import replica
    from ray.util import get_node_ip_address

    add_port = getattr(replica, "add_port_to_grpc_server", None)
    if add_port is None:  # a Ray that is built otherwise
        return
    address = get_node_ip_address()

    def add_port_here(server: Any, where: str) -> Any:
        return add_port(server, where.replace("[::]", address))

    replica.add_port_to_grpc_server = add_port_here
