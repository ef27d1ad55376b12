"""Python client of the service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from eqcctpro.errors import InputError, WorkerError

__all__ = ["PickClient", "ServiceError"]

_MINISEED = "application/vnd.fdsn.mseed"
_TERMINAL = ("done", "failed", "cancelled")


class ServiceError(WorkerError):
    """The service answered with an error, or not at all.

    Attributes
    ----------
    status : int
        Of HTTP; 0 where nothing answered.
    """

    def __init__(self, message: str, *, hint: str | None = None, status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.hint, self.status)


def _rebuild(message: str, hint: str | None, status: int) -> ServiceError:
    return ServiceError(message, hint=hint, status=status)


class PickClient:
    """Client of the service; a context manager.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8000``.
    key : str, optional
        An API key.
    token : str, optional
        From `log_in`.
    timeout_s : float
    retries : int
        How often to ask again when the service is busy or ending, as it says when.
    verify : bool or str
        Whether TLS certificates are checked, or a file of authorities.

    Examples
    --------
    >>> with PickClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     answer = client.pick(Path("NC.HPR..HHZ.mseed"))
    ...     answer["picks"][0]["time"]
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 5,
        verify: bool | str = True,
    ) -> None:
        headers = {} if key is None else {"X-API-Key": key}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._retries = retries
        self._http = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, verify=verify
        )

    def __enter__(self) -> PickClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def pick(self, waveforms: bytes | Path | Sequence[Path], **options: Any) -> dict[str, Any]:
        """Picks of miniSEED records in memory or in files.

        Parameters
        ----------
        waveforms : bytes, path or sequence of path
        **options
            ``model``, ``p_threshold``, ``s_threshold``, ``detection_threshold``, ``private``,
            which keeps the picks out of the stream, and ``priority``, which may be ``batch``:
            requests that are not go first.

        Returns
        -------
        dict
            ``picks``, ``detections``, ``stations``, ``notes``, ``model``, ``request_id``.

        Raises
        ------
        ServiceError
        """
        return self._work("/v1/pick", _content(waveforms), "application/json", options).json()

    def pick_as(
        self, media_type: str, waveforms: bytes | Path | Sequence[Path], **options: Any
    ) -> bytes:
        """Picks in another format, such as ``text/csv``; see `pick`."""
        return self._work("/v1/pick", _content(waveforms), media_type, options).content

    def annotate(self, waveforms: bytes | Path | Sequence[Path], **options: Any) -> dict[str, Any]:
        """Probability curves beside the picks; see `pick`."""
        return self._work("/v1/annotate", _content(waveforms), "application/json", options).json()

    def _work(
        self, path: str, content: bytes, accept: str, options: dict[str, Any]
    ) -> httpx.Response:
        given = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in options.items()
            if value is not None
        }
        headers = {"Content-Type": _MINISEED, "Accept": accept}
        if "priority" in given:
            headers["X-Priority"] = str(given.pop("priority"))
        return self._ask("POST", path, content=content, headers=headers, params=given)

    def models(self) -> list[dict[str, Any]]:
        """The models that are served, the default first."""
        return list(self._ask("GET", "/v1/models").json()["models"])

    def load_model(
        self, name: str, weights: str | None = None, *, wait_s: float = 900.0, **settings: Any
    ) -> dict[str, Any]:
        """Load a model, or other weights of a served one, in all replicas.

        It needs an administrator's key.  What was served is served until all have loaded it.

        Parameters
        ----------
        name : str
            As clients call it.
        weights : str, optional
            ``Class/name``, or ``Class/path`` below a folder that the service loads models from;
            by default those that it has, or the name's.
        wait_s : float
            How long that may take.
        **settings
            ``p_threshold``, ``s_threshold``, ``detection_threshold``, ``bandpass``, ``runtime``,
            ``device``, ``precision``, ``arguments``.

        Returns
        -------
        dict
            ``name``, ``version``, ``state``, ``since``; and ``settings``, the entry that the
            service's setting ``models`` needs if a service that is started again is to have it.

        Raises
        ------
        ServiceError
            It cannot be loaded, and what was served before still is.
        """
        given = settings if weights is None else {"weights": weights, **settings}
        until = time.monotonic() + wait_s
        found = dict(self._ask("POST", f"/v1/models/{name}/load", json=given).json())
        while found["state"] == "LOADING":
            if time.monotonic() > until:
                raise ServiceError(f"{name} is not loaded after {wait_s:g} s")
            time.sleep(1.0)
            told = self._ask("GET", "/v1/models").json()
            for entry in (*told["models"], *told["not_served"]):
                if entry["version"] == found["version"]:
                    found |= {key: entry[key] for key in ("name", "version", "state", "since")}
                    if entry["state"] == "UNAVAILABLE":
                        raise ServiceError(f"{name} is not loaded: {entry['reason']}")
        return found

    def unload_model(self, name: str, default: str | None = None) -> None:
        """Unload a model in all replicas; needs an administrator's key.

        Parameters
        ----------
        name : str
        default : str, optional
            The model of requests that name none from then on; needed where `name` is that now.

        Raises
        ------
        ServiceError
            It is not served, is the only one, or is the default and no other is named.
        """
        content = {} if default is None else {"json": {"default": default}}
        self._ask("POST", f"/v1/models/{name}/unload", **content)

    def ready(self) -> bool:
        """True if the service is ready to pick."""
        try:
            return self._http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def metrics(self) -> str:
        """Metrics in the text format of Prometheus."""
        return self._ask("GET", "/metrics").text

    def log_in(self, name: str, password: str) -> str:
        """Get a token for a name and a password, and use it from now on."""
        token = str(self._ask("POST", "/v1/session", auth=(name, password)).json()["token"])
        self._http.headers["Authorization"] = f"Bearer {token}"
        return token

    def submit(self, **job: Any) -> dict[str, Any]:
        """Submit a job for an archive on the server's disk.

        Parameters
        ----------
        **job
            ``input``, and settings of ``eqcctpro pick``.
        """
        return dict(self._ask("POST", "/v1/jobs", json=job).json())

    def job(self, job_id: str) -> dict[str, Any]:
        """Progress of a job."""
        return dict(self._ask("GET", f"/v1/jobs/{job_id}").json())

    def wait(
        self, job_id: str, *, every_s: float = 1.0, timeout_s: float = 3600.0
    ) -> dict[str, Any]:
        """Wait until a job has ended.

        Raises
        ------
        ServiceError
            It takes longer than `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while (found := self.job(job_id))["status"] not in _TERMINAL:
            if time.monotonic() > until:
                raise ServiceError(f"job {job_id} has not ended in {timeout_s:g} s")
            time.sleep(every_s)
        return found

    def job_result(self, job_id: str, name: str = "picks.csv") -> bytes:
        """Content of a file that a job has written."""
        return self._ask("GET", f"/v1/jobs/{job_id}/result/{name}").content

    def stream(self, last_event_id: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield picks of your requests from now on, or since an event, until the service ends.

        Yields
        ------
        tuple of (str, dict)
            Id of the event, and the pick.
        """
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(60.0)
        try:
            with self._http.stream(
                "GET", "/v1/picks/stream", headers=headers, timeout=timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _error(response)
                event = ""
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        event = value
                    elif name == "data":
                        yield event, json.loads(value)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request; retry it where the service says so."""
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **_traced(arguments))
            except httpx.HTTPError as error:
                raise _unreachable(self._http.base_url, error) from error
            if response.status_code not in (429, 503) or attempt == self._retries:
                break
            wait = response.headers.get("Retry-After", "1")
            time.sleep(min(float(wait), 30.0) if wait.isdigit() else 1.0)
        if response.is_success:
            return response
        raise _error(response)


def _traced(arguments: dict[str, Any]) -> dict[str, Any]:
    """A request in the trace of the program that asks, if that has one."""
    if "opentelemetry.trace" not in sys.modules:
        return arguments
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers = dict(arguments.get("headers", {}))
    TraceContextTextMapPropagator().inject(headers)
    return {**arguments, "headers": headers}


def _content(waveforms: bytes | Path | Sequence[Path]) -> bytes:
    if isinstance(waveforms, bytes):
        return waveforms
    paths = [waveforms] if isinstance(waveforms, Path) else list(waveforms)
    try:
        return b"".join(path.read_bytes() for path in paths)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> ServiceError:
    return ServiceError(
        f"{url} does not answer: {type(error).__name__}: {error}",
        hint="is the service running, and the address right?",
    )


def _error(response: httpx.Response) -> ServiceError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = problem.get("detail") or response.text[:300] or response.reason_phrase
    hint = problem.get("hint")
    if response.status_code == httpx.codes.UNAUTHORIZED:
        hint = "set EQCCTPRO_API_KEY to a key of this service; in Python give key"
    return ServiceError(
        f"{response.request.url.path}: {detail} (HTTP {response.status_code})",
        hint=hint,
        status=response.status_code,
    )
