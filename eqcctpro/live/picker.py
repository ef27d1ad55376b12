"""Picker of real-time data: packets in, messages about picks out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from eqcctpro.codes import Code, component_of
from eqcctpro.live.buffers import BufferSettings, ChannelBuffers, LivePiece
from eqcctpro.live.instruments import Arrival, Instrument, OpenBlock, Patience, instrument_code
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.packets import Checkpoint, Packet, Position
from eqcctpro.live.reports import SAME_ARRIVAL_NS, Decision, Found, Reports
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.curves import curve_times
from eqcctpro.pipeline.running import RunningPipeline, RunningTrigger
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import component_rows

__all__ = ["LivePicker"]

# States of channels, the best first.
_STATES = ("live", "hole", "stale", "dead", "empty")
# Seconds that components may be ahead of one that lags, beside a window.
_AHEAD_S = 120.0
# Seconds without data after which nothing waits for a component.
_GONE_S = 82.0
# Rates that are the same but for the rounding of headers.
_SAME_RATE = 1e-6


class LivePicker:
    """Puts records together, predicts windows as they become ripe, and reports picks.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime
    settings : PipelineSettings
    patience_s : float
        See `eqcctpro.live.settings.LiveConfig`.

    Attributes
    ----------
    buffers : ChannelBuffers
    pipeline : RunningPipeline
    instruments : dict of Code to Instrument
    left_out : dict of Code to str
        Channels that are not picked, and why.

    Raises
    ------
    SettingsError
        The model does not pick records that go on.
    """

    def __init__(
        self,
        picker: Picker,
        runtime: Runtime,
        settings: PipelineSettings,
        *,
        patience_s: float = 10.0,
    ) -> None:
        self.picker = picker
        self.pipeline = RunningPipeline(picker, runtime, settings)
        self.rate = float(picker.sampling_rate or 0)
        window_s = picker.in_samples / self.rate
        ring_s = window_s + patience_s + _AHEAD_S / 4
        self.buffers = ChannelBuffers(BufferSettings(patience_s=patience_s, ring_s=ring_s))
        self.instruments: dict[Code, Instrument] = {}
        self.left_out: dict[Code, str] = {}
        self._rows = component_rows(picker.recorded, flexible=settings.flexible)
        self._shift_ns, _ = curve_times(picker, settings, self.rate, 1.0)
        self._patience = Patience(
            patience_s, round(_AHEAD_S * self.rate), max(_GONE_S, 2 * patience_s)
        )
        self._reports: dict[Code, Reports] = {}
        self._by_channel: dict[Code, Instrument | None] = {}
        self._touched: dict[Code, Instrument] = {}
        self._waiting: dict[Code, Instrument] = {}
        # States of before the end.
        self._kept: dict[Code, dict[str, Any]] = {}
        self._ends = False

    def take(self, packets: Sequence[Packet], source: int = 0) -> None:
        """Put packets of a source in; `step` picks them."""
        self._place(self.buffers.ingest(packets, source))

    def step(self, now: float) -> list[PickMessage]:
        """Predict the windows that are ripe, and report the picks that are decided.

        Parameters
        ----------
        now : float
            Time up to which all that arrived was put in, seconds since 1970 UTC.

        Returns
        -------
        list of PickMessage
        """
        self._place(self.buffers.expire(now))
        for code, instrument in self._waiting.items():
            if instrument.deadline is None or instrument.deadline <= now:
                self._touched[code] = instrument
        touched, self._touched = self._touched, {}
        for code, instrument in touched.items():
            instrument.advance(now, self._patience)
            if instrument.deadline is None:
                self._waiting.pop(code, None)
            else:
                self._waiting[code] = instrument
        self.pipeline.drain()
        return [one for instrument in touched.values() for one in self._decided(instrument)]

    def finish(self, *, ended: bool) -> list[PickMessage]:
        """Report the picks that are there at the end of the run.

        Parameters
        ----------
        ended : bool
            True if no more data will ever come.  Otherwise picks at the end may be other ones
            once there are more, and `state` is that of before: a restart corrects them.
        """
        self._place(self.buffers.flush())
        if not ended:
            self._kept = {code: self._state_of(one) for code, one in self.instruments.items()}
        for instrument in self.instruments.values():
            instrument.advance(float("inf"), self._patience, ends=True)
        self.pipeline.drain()
        self._ends = not ended
        return [one for each in self.instruments.values() for one in self._decided(each)]

    def station_states(self, now: float) -> dict[str, int]:
        """Number of stations by state; see `eqcctpro.live.status.LiveStatus`."""
        best: dict[tuple[str, str], int] = {}
        for code, channel in self.buffers.channels.items():
            if code not in self.left_out:
                rank = _STATES.index(channel.state(now))
                best[code[:2]] = min(best.get(code[:2], rank), rank)
        return dict(Counter(_STATES[rank] for rank in best.values()))

    def positions(self, source: int, checkpoint: Checkpoint) -> Checkpoint:
        """Position of a source from which a restart is sent all that it needs.

        Parameters
        ----------
        source : int
        checkpoint : Checkpoint
            Behind everything that was read.
        """
        first: dict[str, tuple[Arrival, bool]] = {}
        for instrument in self.instruments.values():
            found = instrument.replay()
            if found is not None:
                station = "_".join(instrument.code[:2])
                known = first.get(station)
                if known is None or found[0] < known[0]:
                    first[station] = found
        positions = dict(checkpoint.positions)
        for station, (arrival, exclusive) in first.items():
            if arrival.source == source:
                sequence = arrival.sequence if exclusive else max(arrival.sequence - 1, 0)
                positions[station] = Position(sequence, arrival.start_ns)
            elif arrival.source < 0 and station in positions:  # of several sources
                positions[station] = Position(-1, arrival.start_ns)
        return Checkpoint(checkpoint.protocol, positions)

    def state(self) -> list[Any]:
        """States of all instruments as values of JSON, to be taken between two steps."""
        kept = self._kept
        return [
            [code, kept.get(code) or self._state_of(one), self._reports[code].state()]
            for code, one in self.instruments.items()
        ]

    def _state_of(self, instrument: Instrument) -> dict[str, Any]:
        return instrument.state(self._patience.gone_s)

    def restore(self, state: Sequence[Any], now: float) -> None:
        """Go on from a state; the sources are to send again what `positions` says.

        Parameters
        ----------
        state : sequence
        now : float
            Seconds since 1970 UTC.
        """
        for (network, station, location, channel), kept, reports in state:
            code = (network, station, location, channel)
            self._instrument(code).restore(kept, self.buffers.channel, now)
            self._reports[code].restore(reports)

    def _place(self, pieces: Sequence[LivePiece]) -> None:
        """Give pieces to their instruments."""
        known, touched, channels = self._by_channel, self._touched, self.buffers.channels
        for piece in pieces:
            code = piece.code
            try:
                instrument = known[code]
            except KeyError:
                instrument = self._learn(code)
            if instrument is None:
                continue
            if piece.rate != self.rate and abs(piece.rate / self.rate - 1) > _SAME_RATE:
                self._leave_out(code, f"{piece.rate:g} Hz, and the model takes {self.rate:g} Hz")
                continue
            instrument.add(piece, channels[code])
            touched[instrument.code] = instrument

    def _learn(self, code: Code) -> Instrument | None:
        """The instrument of a channel that is new; None if it is not picked."""
        letter = component_of(code[3])
        if letter not in self._rows:
            self._leave_out(code, f"component {letter}, and the model takes {self.picker.recorded}")
            self._by_channel[code] = None
            return None
        instrument = self._instrument(instrument_code(code))
        self._by_channel[code] = instrument
        return instrument

    def _instrument(self, code: Code) -> Instrument:
        found = self.instruments.get(code)
        if found is None:
            found = Instrument(code, self.rate, self._rows, self.pipeline)
            self.instruments[code] = found
            self._reports[code] = Reports(self.picker, code)
        return found

    def _leave_out(self, code: Code, why: str) -> None:
        self.left_out[code] = why

    def _decided(self, instrument: Instrument) -> Iterator[PickMessage]:
        """Messages about the picks of an instrument that are decided now."""
        reports = self._reports[instrument.code]
        for block in list(instrument.open):
            if block.closed:
                found = block.running.close()
                instrument.open.remove(block)
            else:
                found = block.running.decided(instrument.known_of(block))
            if not found and not reports.open:
                continue
            basis = Decision(
                block.components,
                instrument.time_of(block, instrument.known_of(block)),
                round(instrument.received * NS_PER_S),
            )
            report = reports.at_the_end if self._ends else reports.decided
            for one in sorted(found, key=lambda one: (one.peak, one.label)):
                message = report(self._found(instrument, block, one), basis)
                if message is not None:
                    yield message
            if not self._ends:
                # Picks are decided up to the begin of runs that go on.
                if block.closed:
                    passed_ns = instrument.time_of(block, block.end) + SAME_ARRIVAL_NS
                else:
                    border = min([block.running.decided_until, *block.running.open_runs])
                    passed_ns = instrument.time_of(block, border)
                yield from reports.passed(passed_ns, basis)

    def _found(self, instrument: Instrument, block: OpenBlock, one: RunningTrigger) -> Found:
        peak, onset, end = (
            instrument.time_of(block, sample) + self._shift_ns
            for sample in (one.peak, one.onset, one.end)
        )
        return Found(self.picker.labels[one.label], peak, onset, end, one.value)
