"""Optional preparation of records before all other processing: gap filling and filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.filters import apply_steps, parse_step, settling_s
from eqcctpro.waveform.gaps import GapFilling, Spans, fill_gaps, filled_in_words
from eqcctpro.waveform.segments import Segment

__all__ = ["Preparation"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """Gaps that are filled, and filters and detrending, in the order in which they apply.

    Attributes
    ----------
    fill_gaps : {"none", "zero", "interpolate"}
    longest_gap_s : float or None
        Longer gaps stay gaps; None where none is filled.
    filters : tuple of str
        Steps as `eqcctpro.waveform.filters.parse_step` reads them.
    """

    fill_gaps: GapFilling = "none"
    longest_gap_s: float | None = None
    filters: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """True if any preparation is requested."""
        return self.fill_gaps != "none" or bool(self.filters)

    @property
    def margin_ns(self) -> int:
        """Data to be read around what is picked, so that a cut changes no sample of that."""
        seconds = sum(settling_s(parse_step(text)) for text in self.filters)
        return round((seconds + (self.longest_gap_s or 0.0)) * NS_PER_S)

    @property
    def applied(self) -> dict[str, Any]:
        """Values that applied, by the names of the settings; None for what did not."""
        return {
            "fill_gaps": None if self.fill_gaps == "none" else self.fill_gaps,
            "longest_gap": self.longest_gap_s,
            "filters": list(self.filters) or None,
        }

    def filled(
        self, segments: Sequence[Segment], spans: Spans, notes: list[str]
    ) -> Sequence[Segment]:
        """Segments joined over gaps; a note says how many and how long.

        Raises
        ------
        InputError
            As in `eqcctpro.waveform.gaps.fill_gaps`.
        """
        if self.longest_gap_s is None:
            return segments
        segments, found = fill_gaps(segments, self.fill_gaps, self.longest_gap_s, spans)
        notes.extend(filled_in_words(found, self.fill_gaps))
        return segments

    def filtered(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Segments after all steps.

        Raises
        ------
        InputError
            The sampling rate of one is too low for a filter.
        """
        if not self.filters:
            return segments
        return apply_steps(segments, [parse_step(text) for text in self.filters])
