"""Comparison of tuning with a full sweep: both are run, and their answers compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.config import PickConfig
from eqcctpro.errors import InputError
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.ranking import measured_at, rank
from eqcctpro.evaluation.results import Trial, read_results
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.evaluation.sweep import Sweep
from eqcctpro.evaluation.tuning import Tuner, in_turns

__all__ = ["TuningCheck", "check_tuning"]


@dataclass(frozen=True)
class TuningCheck:
    """A sweep's answer and a tuner's.

    Attributes
    ----------
    sweep_best, tuned : BestConfiguration
        The sweep's fastest, and the tuner's answer.
    sweep_trials, tuning_trials : int
    sweep_s, tuning_s : float
        Wall clock of both.
    ratio : float
        Time of the tuner's answer over that of the sweep's, measured in turns; 1 if they
        are the same configuration.
    """

    sweep_best: BestConfiguration
    tuned: BestConfiguration
    sweep_trials: int
    tuning_trials: int
    sweep_s: float
    tuning_s: float
    ratio: float


def check_tuning(
    config: EvaluationConfig,
    *,
    repeats: int = 11,
    report: Callable[[str], None] = lambda _: None,
) -> TuningCheck:
    """Tune, then sweep the same space without its trials, and compare the answers.

    Parameters
    ----------
    config : EvaluationConfig
        With one number of stations.
    repeats : int
        Turns in which the two answers are measured.
    report : callable
        Told of what goes on.
    """
    folder = config.pick.output

    def elsewhere(name: str) -> EvaluationConfig:
        pick = config.pick.model_copy(update={"output": folder / name})
        return config.model_copy(update={"pick": pick, "csv_dir": folder / name})

    tuner = Tuner(elsewhere("tune"))
    tuned = tuner.run(on_trial=lambda spec, *_: report(f"tuning: {spec.title}"))
    tuning_s = sum(trial.total_seconds or 0.0 for trial in _trials(elsewhere("tune")))
    sweep = Sweep(elsewhere("sweep"))
    done = sweep.run(on_trial=lambda spec, *_: report(f"sweep: {spec.title}"))
    count = max(len(spec.station_set.stations) for spec in sweep.specs)
    options = measured_at([one for one in _trials(elsewhere("sweep")) if one.success], count)
    # The fastest, not what a tie would give it to.
    best = rank(options, key=lambda option: option.seconds)
    return TuningCheck(
        sweep_best=best,
        tuned=tuned.best,
        sweep_trials=len(sweep.specs),
        tuning_trials=tuned.trials,
        sweep_s=done.seconds,
        tuning_s=tuning_s,
        ratio=_in_turns(best, tuned.best, sweep.specs[0].config, folder, repeats),
    )


def _trials(config: EvaluationConfig) -> tuple[Trial, ...]:
    return read_results(config.csv_dir, config.eval_mode).trials


def _in_turns(
    one: BestConfiguration,
    other: BestConfiguration,
    like: PickConfig,
    folder: Path,
    repeats: int,
) -> float:
    if one.settings == other.settings:
        return 1.0
    measured = in_turns([one, other], like, folder / "turns", repeats=repeats)
    if len(measured) < 2:
        raise InputError("one of the two answers fails when it is repeated")
    return measured[1].seconds / measured[0].seconds
