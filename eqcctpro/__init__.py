"""EQCCTPro: P and S arrivals from the waveforms of whole seismic networks.

The public API::

    RunEQCCTPro   a picking run, with the parameter names of EQCCTPro
    PickConfig    the settings of a run, with the names of the command line
    run_picking   runs a PickConfig
    RunResult     what a run found
    pick_stream   picks an ObsPy stream in memory; StreamPicker keeps the model for the next one
    read_picks    picks of a run or a file, as a pyarrow table
    plot_station  waveforms, curves and picks of one station of a run
    EvaluateSystem
                  measures how fast this machine picks in each configuration
    PickSession   runs whose workers stay ready in between
    OptimalCPUConfigurationFinder, OptimalGPUConfigurationFinder
                  which configuration a benchmark found best
    BestConfiguration
                  their answer, which RunEQCCTPro can run
    EQCCTProError and its kinds, in eqcctpro.errors
    SettingsWarning
                  a Python warning: settings that have no effect in this run
    WorkerWarning a Python warning: a run waits for Ray, or has fewer workers than asked for
    EQCCTMSeedRunner
                  RunEQCCTPro under its name of 2025, deprecated
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqcctpro.analysis.station_plot import plot_station
    from eqcctpro.api import RunEQCCTPro
    from eqcctpro.config import PickConfig
    from eqcctpro.errors import EQCCTProError
    from eqcctpro.evaluation.configuration import BestConfiguration
    from eqcctpro.evaluation.finders import (
        OptimalCPUConfigurationFinder,
        OptimalGPUConfigurationFinder,
    )
    from eqcctpro.evaluation.system import EvaluateSystem
    from eqcctpro.notices import SettingsWarning, WorkerWarning
    from eqcctpro.orchestration.result import RunResult
    from eqcctpro.orchestration.run import run_picking
    from eqcctpro.orchestration.session import PickSession
    from eqcctpro.picks.reading import read_picks
    from eqcctpro.seed_runner import EQCCTMSeedRunner
    from eqcctpro.stream_picking import StreamPicker, StreamResult, pick_stream

__all__ = [
    "BestConfiguration",
    "EQCCTMSeedRunner",
    "EQCCTProError",
    "EvaluateSystem",
    "OptimalCPUConfigurationFinder",
    "OptimalGPUConfigurationFinder",
    "PickConfig",
    "PickSession",
    "RunEQCCTPro",
    "RunResult",
    "SettingsWarning",
    "StreamPicker",
    "StreamResult",
    "WorkerWarning",
    "__version__",
    "pick_stream",
    "plot_station",
    "read_picks",
    "run_picking",
]

__version__ = "1.0.0.dev0"

# Loaded when first asked for, so that importing the package costs nothing.
_HOMES = {
    "BestConfiguration": "eqcctpro.evaluation.configuration",
    "EQCCTMSeedRunner": "eqcctpro.seed_runner",
    "EQCCTProError": "eqcctpro.errors",
    "EvaluateSystem": "eqcctpro.evaluation.system",
    "OptimalCPUConfigurationFinder": "eqcctpro.evaluation.finders",
    "OptimalGPUConfigurationFinder": "eqcctpro.evaluation.finders",
    "PickConfig": "eqcctpro.config",
    "RunEQCCTPro": "eqcctpro.api",
    "RunResult": "eqcctpro.orchestration.result",
    "PickSession": "eqcctpro.orchestration.session",
    "SettingsWarning": "eqcctpro.notices",
    "StreamPicker": "eqcctpro.stream_picking",
    "StreamResult": "eqcctpro.stream_picking",
    "WorkerWarning": "eqcctpro.notices",
    "pick_stream": "eqcctpro.stream_picking",
    "plot_station": "eqcctpro.analysis.station_plot",
    "read_picks": "eqcctpro.picks.reading",
    "run_picking": "eqcctpro.orchestration.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'eqcctpro' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
