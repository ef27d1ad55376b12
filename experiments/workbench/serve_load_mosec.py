"""The same model in Mosec, for serve_load.py: same runtime, batches, code from windows to picks."""

from __future__ import annotations

import os
from typing import Any

from mosec import Server, Worker

from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.serving.answers import ANSWER_TYPES, Answer
from eqcctpro.serving.engines import find_model, open_engine
from eqcctpro.serving.settings import ModelSettings, ServeSettings
from eqcctpro.serving.stations import StationRequest, lay_out
from eqcctpro.serving.waveforms import read_body

MODEL = os.environ["SERVE_LOAD_MODEL"]
BATCH = int(os.environ["SERVE_LOAD_BATCH"])
WAIT_MS = int(os.environ["SERVE_LOAD_WAIT_MS"])
WORKERS = int(os.environ["SERVE_LOAD_WORKERS"])


class Picker(Worker):
    """Decode, predict and pick a batch of requests."""

    resp_mime_type = "application/json"

    def __init__(self) -> None:
        settings = ServeSettings.checked({"models": [MODEL], "batching": {"max_batch_size": BATCH}})
        self.model = find_model(ModelSettings(name=MODEL))
        engine = open_engine(self.model, settings)
        engine.online.close()
        self.pipeline: Pipeline = engine.online.pipeline

    def deserialize(self, data: bytes) -> StationRequest:
        kind = "application/msgpack" if data[:1] == b"\x81" else ""
        decoded = read_body(data, kind).decoded
        return lay_out(decoded, self.model.picker, self.model.settings, max_samples=10**9)

    def serialize(self, data: Answer) -> bytes:
        return ANSWER_TYPES["application/json"](data)

    def forward(self, data: list[StationRequest]) -> list[Answer]:
        pipeline = self.pipeline
        pipeline.reset()
        for index, request in enumerate(data):
            pipeline.feed(index, request.prepared[0])
        pipeline.drain()
        results: dict[int, Any] = {one.ticket: one for one in pipeline.finished()}
        return [self._answer(request, results[index]) for index, request in enumerate(data)]

    def _answer(self, request: StationRequest, result: Any) -> Answer:
        picker, stations = self.model.picker, request.stations
        return Answer("0" * 32, picker, stations, [result], request.timechunk, request.notes)


if __name__ == "__main__":
    server = Server()
    # 60 s are three windows of PhaseNet: batches are counted in requests here.
    from eqcctpro.serving.example import example_segments
    from eqcctpro.waveform.decode import DecodedFile

    model = find_model(ModelSettings(name=MODEL))
    windows = lay_out(
        DecodedFile(example_segments()), model.picker, model.settings, max_samples=10**9
    ).n_windows
    server.append_worker(
        Picker,
        num=WORKERS,
        max_batch_size=max(1, BATCH // windows),
        max_wait_time=WAIT_MS,
        timeout=60,
    )
    server.run()
