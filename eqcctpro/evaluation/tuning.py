"""Auto-tuning: the best configuration with a fraction of a sweep's trials.

The axes hardly interact: which runtime is fastest and from which batch size on does not
depend on the mode, and time against batch size or workers has one minimum.  So the axes are
searched one after the other, each from the best point of the ones before, and a search along
an axis stops where it no longer gains.  Trials are processes that follow each other, and on a
machine that others use too their times differ by more than configurations do; so the best of
each mode and runtime are at last measured again in turns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from eqcctpro.config import PickConfig
from eqcctpro.errors import InputError
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.grid import TrialSpec
from eqcctpro.evaluation.ranking import predicted_at, rank
from eqcctpro.evaluation.results import Trial, read_results
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.evaluation.sidebyside import Contender, compare
from eqcctpro.evaluation.subject_process import SessionSpec
from eqcctpro.evaluation.sweep import Listener, Runner, Sweep
from eqcctpro.evaluation.trial import run_trial
from eqcctpro.picks.writers import atomic_file

__all__ = ["Settler", "Tuner", "TuningReport", "in_turns", "remembered", "winner"]

# A gain below this is within what repeats of one configuration differ by.
GAIN = 0.02
# Another mode, or the second runtime, is searched further if it is not slower than this.
WORTH_A_LOOK = 1.3
# Configurations that are not slower than this may be the fastest, and so many of them are
# measured again in turns.
CLOSE = 1.2
RUN_OFF = 3
# Uncertainty of a time that is only scaled with the number of stations.
FAR_OFF = 0.25
# Batch sizes change time by tens of percent, so the search begins in the middle.
START_BATCH = 64

#: Medians that differ by less are the same, and the configuration that takes less wins.
SAME = 0.02

#: Measures configurations again, on the workload of a run's settings, in a folder; in the
#: same order, with the new times.  What failed is left out.
Settler = Callable[[Sequence[BestConfiguration], PickConfig, Path], list[BestConfiguration]]


def in_turns(
    options: Sequence[BestConfiguration], like: PickConfig, folder: Path, *, repeats: int = 9
) -> list[BestConfiguration]:
    """Measure configurations side by side, warm, in turns.

    Parameters
    ----------
    options : sequence of BestConfiguration
    like : PickConfig
        Input, stations and model.
    folder : Path
        Picks are written below it.
    repeats : int
        Runs of each.

    Returns
    -------
    list of BestConfiguration
        Those that worked, with median and range of these runs as their times.
    """
    contenders = []
    for number, option in enumerate(options):
        run = PickConfig.checked(
            **option.pick_settings(),
            model=like.model,
            input=like.input,
            layout=like.layout,
            stations=like.stations,
            output=folder / str(number),
            formats=("csv",),
            overview=False,
        )
        contenders.append(Contender(str(number), SessionSpec(config=run)))
    return [
        replace(
            option,
            seconds=measured.median,
            seconds_low=min(measured.seconds),
            seconds_high=max(measured.seconds),
        )
        for option, measured in zip(
            options, compare(contenders, folder, repeats=repeats), strict=True
        )
        if not measured.failure
    ]


def remembered(settle: Settler, memory: Path) -> Settler:
    """A settler that asks another one only for what the file does not know yet."""

    def settled(
        options: Sequence[BestConfiguration], like: PickConfig, folder: Path
    ) -> list[BestConfiguration]:
        names = [option.trial.configuration_id for option in options]
        known = json.loads(memory.read_text()) if memory.exists() else {}
        if known.get("configurations") != names:
            found = settle(options, like, folder)
            times = {
                option.trial.configuration_id: [
                    option.seconds,
                    option.seconds_low,
                    option.seconds_high,
                ]
                for option in found
            }
            known = {"configurations": names, "seconds": times}
            with atomic_file(memory) as file:
                file.write(json.dumps(known, indent=1).encode() + b"\n")
        return [
            replace(option, seconds=median, seconds_low=low, seconds_high=high)
            for name, option in zip(names, options, strict=True)
            if name in known["seconds"]
            for median, low, high in [known["seconds"][name]]
        ]

    return settled


def winner(options: Sequence[BestConfiguration]) -> BestConfiguration:
    """The fastest, or of those as fast the one that takes least; it knows its runner-up."""
    by_time = sorted(options, key=lambda option: option.seconds)
    fastest = by_time[0].seconds
    same = [option for option in by_time if option.seconds <= fastest * (1 + SAME)]
    best = min(same, key=lambda option: (option.cost, option.seconds))
    second = next((option for option in by_time if option is not best), None)
    return replace(best, runner_up=second)


@dataclass(frozen=True)
class TuningReport:
    """Report of tuning.

    Attributes
    ----------
    best : BestConfiguration
        The fastest.
    smallest : BestConfiguration or None
        The one with the fewest GPUs, CPUs and least memory that keeps the deadline.
    for_stations : BestConfiguration
        `best` at the number of stations that was asked for: predicted, where the input has
        fewer.
    deadline_s : float or None
    trials : int
        Trials that were needed, with those that were there before and those in turns.
    space : int
        Trials of a full sweep.
    notes : list of str
    """

    best: BestConfiguration
    smallest: BestConfiguration | None
    for_stations: BestConfiguration
    deadline_s: float | None
    trials: int
    space: int
    notes: list[str] = field(default_factory=list)

    @property
    def keeps_deadline(self) -> bool | None:
        """True if the slowest repeat is in time; None without a deadline."""
        return (
            None if self.deadline_s is None else self.for_stations.seconds_high <= self.deadline_s
        )

    def verdict(self) -> str:
        """The answer in a sentence."""
        if self.deadline_s is None:
            return "no deadline was given"
        answer = self.for_stations
        spare = self.deadline_s - answer.seconds_high
        how = "predicted" if answer.predicted else "measured"
        if spare >= 0:
            return (
                f"{answer.stations} stations keep the deadline of {self.deadline_s:g} s with "
                f"{spare:.3g} s to spare ({how})"
            )
        most = math.floor(answer.stations * self.deadline_s / answer.seconds_high)
        return (
            f"{answer.stations} stations miss the deadline of {self.deadline_s:g} s by "
            f"{-spare:.3g} s ({how}); about {most} stations would keep it"
        )

    def write(self, path: Path) -> Path:
        """Write the settings of the best configuration, for ``eqcctpro pick --config``."""
        with atomic_file(path) as file:
            settings = {"model": self.best.model, **self.best.pick_settings()}
            file.write(json.dumps(settings, indent=1).encode() + b"\n")
        return path


class Tuner:
    """Searches a sweep's configurations for the fastest one.

    Parameters
    ----------
    config : EvaluationConfig
        Its axes are the space that is searched; with several station counts, the largest
        one counts, and the others serve to predict more stations than there are.
    stations : int, optional
        Stations that the configuration is for.
    deadline_s : float, optional
        Seconds in which they have to be picked.

    Raises
    ------
    EQCCTProError
        As `Sweep`.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        *,
        stations: int | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.sweep = Sweep(config)
        self._config = config
        self._deadline_s = deadline_s
        counts = sorted({len(spec.station_set.stations) for spec in self.sweep.specs})
        self._count = counts[-1]
        self._wanted = stations or self._count
        self._fewer = counts[-2] if len(counts) > 1 else None
        self.space = [spec for spec in self.sweep.specs if not spec.baseline and self._full(spec)]
        self._seen: dict[str, float] = {}
        self._runner: Runner = run_trial
        self._listener: Listener | None = None

    def _full(self, spec: TrialSpec) -> bool:
        return len(spec.station_set.stations) == self._count

    def run(
        self,
        *,
        runner: Runner = run_trial,
        on_trial: Listener | None = None,
        settle: Settler = in_turns,
    ) -> TuningReport:
        """Search; trials are kept like those of a sweep, and found there when repeated.

        Parameters
        ----------
        runner : callable
            Carries out a trial.
        on_trial : callable, optional
            Told of each.
        settle : callable
            Measures those configurations again that trials cannot tell apart.

        Raises
        ------
        InputError
            No trial succeeded; the message has the first error.
        """
        self._runner, self._listener = runner, on_trial
        self._search()
        trials = [trial for trial in self._trials() if trial.configuration_id in self._seen]
        good = [trial for trial in trials if trial.success]
        if not good:
            errors = [trial.error for trial in trials]
            raise InputError(f"no configuration works: {errors[0]}")
        options = [BestConfiguration.measured(trial) for trial in good]
        best, settled = self._settle(options, settle)
        answer, notes = self._for_wanted(best)
        return TuningReport(
            best=best,
            smallest=self._smallest(good),
            for_stations=answer,
            deadline_s=self._deadline_s,
            trials=len(self._seen) + len(settled),
            space=len(self.space),
            notes=[*settled, *notes],
        )

    def _settle(
        self, options: Sequence[BestConfiguration], settle: Settler
    ) -> tuple[BestConfiguration, list[str]]:
        """The best, after the closest ones have been measured in turns; a note on each."""
        best_of: dict[tuple[str, str], BestConfiguration] = {}
        for option in sorted(options, key=lambda option: option.seconds):
            best_of.setdefault((option.mode, str(option.settings.get("runtime"))), option)
        most = max(2, min(RUN_OFF, len(self.space) // 4 - len(self._seen)))
        fastest, *_ = close = list(best_of.values())[:most]
        close = [option for option in close if option.seconds <= CLOSE * fastest.seconds]
        if len(close) == 1:
            return rank(options), []
        like = next(
            spec.config
            for spec in self.space
            if spec.configuration_id == fastest.trial.configuration_id
        )
        known = remembered(settle, self._config.csv_dir / "tuned_in_turns.json")
        found = known(close, like, self._config.pick.output / "in_turns")
        if not found:
            return rank(options), []
        return winner(found), [
            f"in turns {option.seconds:.3g} s: {option.mode}, {option.settings.get('runtime')}, "
            f"batch {option.settings.get('batch_size')}"
            for option in sorted(found, key=lambda option: option.seconds)
        ]

    def _search(self) -> None:
        """Axis after axis: runtimes in the cheapest mode, other modes, batches, workers."""
        order = {"local": 0, "modelactor": 1, "ripper": 2}
        modes = sorted({spec.config.mode for spec in self.space}, key=lambda mode: order[mode])
        first = self._middle([spec for spec in self.space if spec.config.mode == modes[0]])
        by_runtime = sorted(self._variants(first, "runtime"), key=self._seconds)
        best = by_runtime[0]
        worthwhile = WORTH_A_LOOK * self._seconds(best)
        others = [one for one in by_runtime[1:2] if self._seconds(one) < worthwhile]
        starts = [best, *others]
        for mode in modes[1:]:
            found = min((self._in_mode(mode, one) for one in starts), key=self._seconds)
            if self._seconds(found) < WORTH_A_LOOK * self._seconds(best):
                found = self._climb(found, "workers")
            best = min(best, found, key=self._seconds)
        best = self._climb(best, "batch_size")
        for other in others:
            same = self._variants(other, "batch_size")
            alike = [s for s in same if s.config.batch_size == best.config.batch_size]
            best = min([best, *alike], key=self._seconds)

    def _in_mode(self, mode: str, like: TrialSpec) -> TrialSpec:
        """A configuration in another mode, with a worker for each core."""
        alike = [
            spec
            for spec in self.space
            if spec.config.mode == mode
            and spec.config.runtime == like.config.runtime
            and spec.config.batch_size == like.config.batch_size
        ]
        return min(alike, key=self._distance_from_cores)

    def _distance_from_cores(self, spec: TrialSpec) -> int:
        useful = len(spec.config.gpu_ids) or len(spec.config.cpu_ids or ())
        return abs((spec.config.workers or 1) - useful)

    def _middle(self, specs: Sequence[TrialSpec]) -> TrialSpec:
        """First configuration of the search: as many workers as cores, and a middling batch."""

        def distance(spec: TrialSpec) -> tuple[float, int]:
            batch = spec.config.batch_size
            return (
                0.0 if batch is None else abs(math.log2(batch / START_BATCH)),
                self._distance_from_cores(spec),
            )

        return min(specs, key=distance)

    def _variants(self, spec: TrialSpec, axis: str) -> list[TrialSpec]:
        """Configurations that differ from one along an axis only, in its order."""

        def others(one: TrialSpec) -> str:
            return one.config.model_dump_json(exclude={axis})

        same = [one for one in self.space if others(one) == others(spec)]
        if axis == "runtime":
            return same
        return sorted(same, key=lambda one: getattr(one.config, axis) or 0)

    def _climb(self, start: TrialSpec, axis: str) -> TrialSpec:
        """Along an axis in the direction that gains, as long as it does."""
        line = self._variants(start, axis)
        best = here = line.index(start)
        for step in (1, -1):
            position = here + step
            while 0 <= position < len(line):
                gain = 1 - self._seconds(line[position]) / self._seconds(line[best])
                if gain > 0:
                    best = position
                if gain < GAIN:
                    break
                position += step
            if best != here:
                break
        return line[best]

    def _seconds(self, spec: TrialSpec) -> float:
        """Median time of a configuration; measured if it was not yet, infinite if it fails."""
        name = spec.configuration_id
        if name not in self._seen:
            self.sweep.measure(spec, self._runner, self._listener)
            found = [trial for trial in self._trials() if trial.configuration_id == name]
            self._seen[name] = found[-1].seconds if found[-1].success else math.inf
        return self._seen[name]

    def _trials(self) -> tuple[Trial, ...]:
        return read_results(self._config.csv_dir, self._config.eval_mode).trials

    def _smallest(self, good: Sequence[Trial]) -> BestConfiguration | None:
        """The one that takes least of those that keep the deadline at the stations measured."""
        if self._deadline_s is None or self._wanted > self._count:
            return None
        options = [BestConfiguration.measured(trial) for trial in good]
        in_time = [option for option in options if option.seconds_high <= self._deadline_s]
        return rank(in_time, key=lambda option: option.cost) if in_time else None

    def _for_wanted(self, best: BestConfiguration) -> tuple[BestConfiguration, list[str]]:
        """The best configuration at the stations asked for."""
        if self._wanted <= self._count or self._fewer is None:
            return best, []
        note = f"the input holds {self._count} stations; {self._wanted} are predicted from it"
        for spec in self.sweep.specs:
            if len(spec.station_set.stations) == self._fewer and self._is_best(spec, best):
                self._seconds(spec)
        same = [
            trial
            for trial in self._trials()
            if trial.success and trial.configuration_id in self._seen
        ]
        options, _ = predicted_at(same, self._wanted)
        like = [one for one in options if one.settings == best.settings]
        if like:
            return rank(like), [note]
        return _in_proportion(best, self._wanted), [
            note,
            f"{self._wanted} stations are beyond what a prediction covers: time is taken in "
            f"proportion to {self._count} stations, within {100 * FAR_OFF:.0f} %",
        ]

    def _is_best(self, spec: TrialSpec, best: BestConfiguration) -> bool:
        """True if a spec with fewer stations is otherwise the best configuration."""
        (winner,) = (
            one for one in self.space if one.configuration_id == best.trial.configuration_id
        )
        ignored = {"input", "stations"}
        return spec.config.model_dump_json(exclude=ignored) == winner.config.model_dump_json(
            exclude=ignored
        )


def _in_proportion(best: BestConfiguration, stations: int) -> BestConfiguration:
    """A configuration's time with many more stations than were measured."""
    seconds = best.seconds * stations / best.stations
    return replace(
        best,
        stations=stations,
        seconds=seconds,
        seconds_low=seconds * (1 - FAR_OFF),
        seconds_high=seconds * (1 + FAR_OFF),
        predicted=True,
        basis=(best.trial,),
        runner_up=None,
    )
