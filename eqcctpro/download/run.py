"""A download from its settings to files, a list of gaps, and station metadata."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from filelock import FileLock, Timeout

from eqcctpro.download.asking import Request, plan_requests
from eqcctpro.download.channels import find_channels, stream_lines, write_station_xml
from eqcctpro.download.data_centre import DataCentre, DataCentreError, TooLargeError
from eqcctpro.download.denoising import Denoiser
from eqcctpro.download.ledger import Entry, Ledger
from eqcctpro.download.received import (
    find_gaps,
    read_records,
    what_is_wrong,
    write_chunk,
    write_days,
)
from eqcctpro.download.settings import DownloadSettings, service_root
from eqcctpro.errors import OutputError, SettingsError
from eqcctpro.orchestration.interrupt import RunInterrupted
from eqcctpro.orchestration.progress import Progress
from eqcctpro.picks.writers import atomic_file, check_writable

__all__ = ["Downloaded", "download"]


@dataclass(frozen=True)
class Downloaded:
    """Result of a download.

    Attributes
    ----------
    entries : list of Entry
        One for each request.
    summary : dict
        The content of ``download.json``.
    """

    entries: list[Entry]
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """10 when requests failed, else 0."""
        return 10 if any(entry.status == "failed" for entry in self.entries) else 0


def download(settings: DownloadSettings, *, quiet: bool = True) -> Downloaded:
    """Fetch waveforms and metadata of a network from a data centre.

    What an earlier download into the same folder has finished is not asked for again.

    Raises
    ------
    SettingsError
        No channel matches, or another setting is wrong.
    DataCentreError
        The station service does not answer; failures of single waveform requests are recorded.
    WeightsNotFoundError
        The denoiser's weights cannot be had.
    OutputError
        The folder cannot be written, or another download is writing to it.
    """
    started = time.perf_counter()
    check_writable(settings.output)
    root = service_root(settings.host)
    service = DataCentre(
        root, rate=settings.rate, retries=settings.retries, timeout_s=settings.timeout
    )
    lock = FileLock(settings.output / ".download.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"another download is writing to {settings.output}", hint="wait for it to end"
        ) from error
    with lock:
        denoiser = Denoiser(settings.denoise_model) if settings.denoise else None
        channels = find_channels(service, settings)
        requests = plan_requests(channels, settings)
        entries = _fetch_all(requests, service, settings, denoiser, quiet=quiet)
        metadata, problem = False, ""
        if settings.metadata:
            try:
                metadata = write_station_xml(service, channels, settings)
            except DataCentreError as error:
                problem = str(error)
        summary = {
            **_counts(entries),
            "channels": len({channel.code for channel in channels}),
            "retried": service.retried,
            "seconds": round(time.perf_counter() - started, 3),
            "metadata": "stations.xml" if metadata else None,
            "metadata_error": problem,
            "gaps": [gap for entry in entries for gap in entry.gaps],
            "failed": [{"request": e.name, "error": e.error} for e in entries if e.error],
            "service": root,
            "settings": settings.model_dump(mode="json"),
        }
        with atomic_file(settings.output / "download.json") as file:
            file.write(json.dumps(summary, indent=2).encode() + b"\n")
    return Downloaded(entries, summary)


def _counts(entries: Sequence[Entry]) -> dict[str, Any]:
    statuses = Counter(entry.status for entry in entries)
    return {
        "requests": {status: statuses[status] for status in ("done", "empty", "failed")},
        "files": len({name for entry in entries for name in entry.files}),
        "bytes": sum(entry.n_bytes for entry in entries),
    }


def _fetch_all(
    requests: Sequence[Request],
    service: DataCentre,
    settings: DownloadSettings,
    denoiser: Denoiser | None,
    *,
    quiet: bool,
) -> list[Entry]:
    entries: list[Entry] = []
    with Ledger(settings.output) as ledger:
        if other := ledger.kinds - {_kind(settings)}:
            raise SettingsError(
                f"{settings.output} holds a download of another kind ({other.pop()}, and "
                f"this one is {_kind(settings)})",
                hint="use another folder",
            )
        waiting = []
        for request in requests:
            key = _key(request, settings)
            earlier = ledger.finished(key, retry_empty=settings.retry_empty)
            if earlier is None:
                waiting.append(request)
            else:
                entries.append(earlier)
        with _Shown(len(requests), quiet=quiet, already=len(entries)) as progress:
            try:
                for entry in _results(waiting, service, settings, denoiser):
                    ledger.add(entry)
                    entries.append(entry)
                    failed = int(entry.status == "failed")
                    progress.add(done=1, picks=entry.n_bytes, failed=failed)
            except KeyboardInterrupt as error:
                raise RunInterrupted(
                    f"interrupted: {len(entries)} of {len(requests)} requests are recorded",
                    hint="the same command goes on from there",
                ) from error
    return entries


def _kind(settings: DownloadSettings) -> str:
    """Kind of result that is made of answers."""
    return settings.layout + (f", denoised by {settings.denoise_model}" if settings.denoise else "")


def _key(request: Request, settings: DownloadSettings) -> str:
    return f"{_kind(settings)}: {request.key}"


def _results(
    requests: Sequence[Request],
    service: DataCentre,
    settings: DownloadSettings,
    denoiser: Denoiser | None,
) -> Iterator[Entry]:
    """Entries as requests end; few are under way, so that an interruption is quick."""
    source = iter(requests)
    with ThreadPoolExecutor(settings.workers, "eqcctpro-download") as pool:
        under_way: set[Future[Entry]] = set()
        try:
            while True:
                for request in source:
                    under_way.add(pool.submit(_fetch, request, service, settings, denoiser))
                    if len(under_way) >= settings.workers:
                        break
                if not under_way:
                    return
                ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            if under_way:
                service.stop()


def _fetch(
    request: Request,
    service: DataCentre,
    settings: DownloadSettings,
    denoiser: Denoiser | None,
) -> Entry:
    key = _key(request, settings)
    try:
        content = _waveforms(service, request)
    except DataCentreError as error:
        return Entry(key, request.name, "failed", error=str(error))
    arrived = read_records(content)
    if denoiser is not None and arrived:
        try:
            arrived = denoiser(arrived)
        except Exception as error:  # of any kind, from SeisBench or torch: this request fails
            problem = f"denoise: {type(error).__name__}: {error}"
            return Entry(key, request.name, "failed", error=problem)
    gaps = [gap.as_dict() for gap in find_gaps(request.expected(), arrived)]
    if not arrived:
        return Entry(key, request.name, "empty", gaps=gaps)
    write = write_days if settings.layout == "sds" else write_chunk
    files = write(settings.output, request, arrived)
    return Entry(key, request.name, "done", files, len(content), gaps)


def _waveforms(service: DataCentre, request: Request) -> bytes:
    """The records of a request; one that is too large is sent in pieces."""
    codes = sorted({channel.code for channel in request.channels})
    patterns = [(net, sta, loc or "--", cha) for net, sta, loc, cha in codes]
    body = "nodata=204\n" + stream_lines(patterns, request.start_ns, request.end_ns)
    try:
        return service.post("dataselect", body, what_is_wrong)
    except TooLargeError:
        pieces = _halves(request)
        if not pieces:
            raise
    return b"".join(_waveforms(service, piece) for piece in pieces)


def _halves(request: Request) -> list[Request]:
    """Half of the channels, or half of the time; nothing below a minute of one channel."""
    codes = sorted({channel.code for channel in request.channels})
    if len(codes) > 1:
        first = set(codes[: len(codes) // 2])
        parts = [[], []]  # type: list[list[Any]]
        for channel in request.channels:
            parts[channel.code not in first].append(channel)
        return [replace(request, channels=tuple(part)) for part in parts]
    if request.end_ns - request.start_ns < 60_000_000_000:
        return []
    middle = (request.start_ns + request.end_ns) // 2
    chunk = request.chunk
    return [
        replace(request, chunk=replace(chunk, read_end_ns=middle)),
        replace(request, chunk=replace(chunk, read_start_ns=middle)),
    ]


class _Shown(Progress):
    """Progress of a download."""

    def line(self) -> str:
        """Requests done, megabytes, failures."""
        parts = [f"{self.done}/{self._total} requests", f"{self.picks / 1e6:.1f} MB"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        return "  ".join(parts)
