"""Results of picking: outcome, picks, and the time it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.picks.raw import RawPicks
from eqcctpro.waveform.decode import NOT_PICKED

__all__ = [
    "NOT_COUNTED",
    "NOT_PICKED_BECAUSE",
    "PickOutcome",
    "PickResult",
    "SampleCounts",
    "StageSeconds",
    "Status",
    "samples_not_picked",
]

Status = Literal["done", "empty", "failed"]

#: Why samples are not picked, in words for a user.
NOT_PICKED_BECAUSE = {
    "doubled": "other records hold the same",
    "contradicting": "records contradict each other",
    "not_a_number": "not a number",
    "component_not_used": "of a component that the model does not use",
    "components_missing": "other components are missing",
    "all_zero": "of stations with zeros only",
    "shorter_than_window": "in stretches shorter than a window",
    "failed": "of stations that failed",
}


def samples_not_picked(left_out: Mapping[str, int], held: int) -> list[str]:
    """Sentence about samples that were not picked, unless other records hold the same.

    Parameters
    ----------
    left_out : mapping of str to int
        Samples by the names of `NOT_PICKED_BECAUSE`.
    held : int
        All samples.

    Returns
    -------
    list of str
        One, or none where all samples were picked.
    """
    causes = {cause: n for cause, n in left_out.items() if n and cause != "doubled"}
    if not causes:
        return []
    listed = "; ".join(f"{n} {NOT_PICKED_BECAUSE[cause]}" for cause, n in causes.items())
    return [f"{NOT_PICKED}{100 * sum(causes.values()) / held:.2g} % of {held} samples: {listed}"]


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples of one instrument in the time whose picks are wanted, as its records hold them.

    Attributes
    ----------
    held : int
        Samples of all its channels.
    picked : int
        Those that windows cover.
    data_ns : int
        Time of which some channel has samples, ns.
    left_out : tuple of (str, int)
        Those that are not picked, by the names of `NOT_PICKED_BECAUSE`.
    """

    held: int = 0
    picked: int = 0
    data_ns: int = 0
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> SampleCounts:
        """The same where picking has failed: none of the samples are picked."""
        left_out = (("failed", self.held),) if self.held else ()
        return SampleCounts(self.held, 0, self.data_ns, left_out)


#: Of waveforms of which nothing is known.
NOT_COUNTED = SampleCounts()


@dataclass(frozen=True, slots=True)
class PickOutcome:
    """Status of what was picked for one ticket, with the reason, notes and counts.

    Attributes
    ----------
    status : {"done", "empty", "failed"}
    reason : str
        Why it is empty, or the error's message; empty text when done.
    error : str
        Class of the error, or empty text.
    notes : tuple of str
        What was done to the data: gaps filled, components missing, resampling.
    n_windows : int
        Windows that the network saw.
    n_samples : int
        Decoded samples.
    n_outside : int
        Picks beyond the span of the settings, dropped by rule.
    highest_p, highest_s : float or None
        Highest probability of any phase whose name begins with P or S, in the time whose
        picks are wanted; None where no window reaches.
    seconds : float
        That reading and preparing it took.
    counts : SampleCounts
        Zeros where it failed before that was known.
    """

    status: Status
    reason: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    n_windows: int = 0
    n_samples: int = 0
    n_outside: int = 0
    highest_p: float | None = None
    highest_s: float | None = None
    seconds: float = field(default=0.0, compare=False)
    counts: SampleCounts = NOT_COUNTED

    @classmethod
    def failure(
        cls, error: Exception, notes: tuple[str, ...] = (), counts: SampleCounts = NOT_COUNTED
    ) -> PickOutcome:
        """The outcome of what ended with an error."""
        return cls("failed", str(error), type(error).__name__, notes, counts=counts.failed)


@dataclass(slots=True)
class PickResult:
    """Outcome, picks and detections of the waveforms of one ticket.

    Attributes
    ----------
    ticket : object
        What they were given to the pipeline with.
    outcome : PickOutcome
    picks, detections : RawPicks
        Also those shortly beyond the time that was asked for; `eqcctpro.picks.borders.settle`
        tells which neighbour keeps them.
    curves : list of BlockCurves
        Where they were asked for.
    """

    ticket: Any
    outcome: PickOutcome
    picks: RawPicks = field(default_factory=RawPicks.empty)
    detections: RawPicks = field(default_factory=RawPicks.empty)
    curves: list[BlockCurves] = field(default_factory=list)


@dataclass
class StageSeconds:
    """Seconds spent per stage; decoding and preparing overlap with inference."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decode", "prepare", "infer", "pick"), 0.0)
    )

    def since(self, earlier: Mapping[str, float]) -> dict[str, float]:
        """Seconds that were spent after an earlier copy of `seconds` was made."""
        return {stage: value - earlier.get(stage, 0.0) for stage, value in self.seconds.items()}

    def add(self, other: Mapping[str, float]) -> None:
        """Add the seconds of another worker."""
        for stage, value in other.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value
