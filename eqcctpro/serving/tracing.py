"""OpenTelemetry traces of requests: time of each part, as spans of the client's trace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eqcctpro import __version__
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from eqcctpro.serving.online import Moments

__all__ = ["Trace", "Tracer", "require_tracing", "spanned"]

# What programs beside a service in the same data centre answer in.
_EXPORT_S = 5.0
_TRACES = "/v1/traces"
# How long what is not sent yet may keep a replica that ends.
_END_S = 3.0
# Other vendors' part of a trace's context, as long as W3C asks for at least.
_MOST_STATE = 512


class Trace:
    """The spans of one request.

    Parameters
    ----------
    tracer : opentelemetry.trace.Tracer
    span : Span
        Of the request as a whole.
    """

    def __init__(self, tracer: Any, span: Span) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer, self._span = tracer, span
        self._context = set_span_in_context(span)

    @property
    def trace_id(self) -> str:
        """Hexadecimal, as in W3C's ``traceparent``."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """Value of the header ``traceparent`` for the next service of the trace."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def note(self, **attributes: str | int | float | bool) -> None:
        """Set attributes of the request; underscores become dots."""
        for name, value in attributes.items():
            self._span.set_attribute(f"eqcctpro.{name}", value)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A part of the request, until the end of the block."""
        span = self._tracer.start_span(name, self._context, record_exception=False)
        try:
            yield
        finally:
            span.end()

    def add_moments(self, moments: Moments) -> None:
        """Waiting for the network, and executing it, when both are over."""
        ahead_ns = time.time_ns() - time.perf_counter_ns()
        begun = moments.begun or moments.ended
        for name, start, end in (
            ("wait", moments.queued, begun),
            ("inference", begun, moments.ended),
        ):
            since = int(start * 1e9) + ahead_ns
            span = self._tracer.start_span(name, self._context, start_time=since)
            span.end(max(int(end * 1e9) + ahead_ns, since))

    def end(self, status: int, problem: str | None, names: Mapping[str, str | int]) -> None:
        """End the trace of an answered request.

        Parameters
        ----------
        status : int
            Of HTTP, or what it would be.
        problem : str or None
            What went wrong.
        names : mapping
            More attributes, with their whole names.
        """
        from opentelemetry.trace import Status, StatusCode

        for name, value in names.items():
            self._span.set_attribute(name, value)
        self._span.set_attribute("http.response.status_code", status)
        if problem is not None:
            self._span.set_attribute("error.type", str(status))
        if status >= 500:  # what a client does wrong is no error of a server
            self._span.set_status(Status(StatusCode.ERROR, problem))
        self._span.end()


class Tracer:
    """Creates traces, and exports their spans in the background.

    Parameters
    ----------
    address : str
        Of the collector (OTLP over HTTP), such as ``http://127.0.0.1:4318``.
    exporter : SpanExporter, optional
        In place of a collector.
    """

    def __init__(self, address: str, exporter: SpanExporter | None = None) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        _log_as_the_service_does()
        # Its own: Ray and other libraries have providers for what they do.
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "eqcctpro", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(_otlp_exporter(address))
            if exporter is None
            else SimpleSpanProcessor(exporter)
        )
        self._tracer = self._provider.get_tracer("eqcctpro.serving", __version__)

    def begin(self, name: str, headers: Mapping[bytes, bytes]) -> Trace:
        """Begin the trace of a request, or continue the one that its headers name.

        Parameters
        ----------
        name : str
        headers : mapping
            ``traceparent`` and ``tracestate`` as W3C's Trace Context has them; a wrong one begins a
            new trace.
        """
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {}
        for key in ("traceparent", "tracestate"):
            value = headers.get(key.encode(), b"").decode("latin-1")
            if value and len(value) <= _MOST_STATE:
                carrier[key] = value
        parent = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span(
            name,
            parent,
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        )
        return Trace(self._tracer, span)

    def close(self) -> None:
        """Send what is left, if the collector takes it soon."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_END_S)


@contextmanager
def spanned(trace: Trace | None, name: str) -> Iterator[None]:
    """A part of a request until the end of the block, if the request is traced."""
    if trace is None:
        yield
    else:
        with trace.span(name):
            yield


def require_tracing(address: str | None) -> None:
    """Check before the start that traces can be exported, if they are configured.

    Raises
    ------
    SettingsError
        Packages are missing.
    """
    if address is None:
        return
    names = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    missing = [name for name in names if not _is_there(name)]
    if missing:
        raise SettingsError(
            f"logs.traces: packages are missing: {', '.join(missing)}",
            hint="pip install 'eqcctpro[tracing]', or leave logs.traces out",
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _otlp_exporter(address: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # Collectors' pages give either.
    endpoint = f"{address.rstrip('/').removesuffix(_TRACES)}{_TRACES}"
    return OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S)


def _log_as_the_service_does() -> None:
    """Send messages of the trace exporter to the service's log."""
    theirs, ours = logging.getLogger("opentelemetry"), logging.getLogger("eqcctpro")
    theirs.handlers, theirs.propagate = list(ours.handlers), ours.propagate
