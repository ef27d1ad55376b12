"""Configurations that single trials cannot tell apart, measured again in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from eqcctpro.config import PickConfig
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.sidebyside import Contender, compare
from eqcctpro.evaluation.subject_process import SessionSpec
from eqcctpro.picks.writers import atomic_file

__all__ = ["Settler", "in_turns", "remembered", "winner"]

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
