"""Waveforms without noise, by SeisBench's DeepDenoiser."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import Any

from pymseed import DataEncoding, MS3TraceList, nslc2sourceid

from eqcctpro.download.received import ReceivedRecord, read_records
from eqcctpro.errors import WeightsNotFoundError

__all__ = ["Denoiser"]

RECORD_BYTES = 4096


class Denoiser:
    """Denoises records channel by channel.

    Parameters
    ----------
    child : str
        Name of the weights, such as ``urban`` or ``original``.

    Raises
    ------
    WeightsNotFoundError
        They are neither here nor to be had.
    """

    def __init__(self, child: str) -> None:
        import seisbench.models

        try:
            self._model: Any = seisbench.models.DeepDenoiser.from_pretrained(child)
        except Exception as error:  # whatever a download, a server or a file is wrong with
            raise WeightsNotFoundError(
                f"denoise: the weights DeepDenoiser/{child} cannot be had: {error}",
                hint="connect to the internet once, or put deepdenoiser/"
                f"{child}.pt.v1 and .json.v1 into SeisBench's cache",
            ) from error
        self._model.eval()
        self._lock = threading.Lock()

    def __call__(self, records: Sequence[ReceivedRecord]) -> list[ReceivedRecord]:
        """Denoised records, of 32-bit floating-point samples at the model's rate.

        Stretches shorter than a window of the model (30 s) are lost.
        """
        import obspy

        waveforms = obspy.read(io.BytesIO(b"".join(record.content for record in records)))
        with self._lock:
            denoised = self._model.annotate(waveforms)
        traces = MS3TraceList()
        for trace in denoised:
            stats = trace.stats
            channel = stats.channel.rpartition("_")[2]
            traces.add_data(
                nslc2sourceid(stats.network, stats.station, stats.location, channel),
                trace.data.astype("float32"),
                "f",
                float(stats.sampling_rate),
                starttime=stats.starttime.ns,
            )
        content = b"".join(
            traces.generate(
                max_record_length=RECORD_BYTES, encoding=DataEncoding.FLOAT32, format_version=2
            )
        )
        return read_records(content)
