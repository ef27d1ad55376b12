"""The script that runs in PyOcto's environment; it imports nothing of ours.

``python pyocto_worker.py FOLDER`` reads ``input.npz`` and ``settings.json`` there and writes
``output.npz``.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

__all__: list[str] = []

_KM_PER_DEGREE = 111.2


def run(folder: Path) -> None:
    """Associate the picks of a folder."""
    import numpy as np
    import pandas as pd
    import pyocto

    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    with np.load(folder / "input.npz", allow_pickle=False) as given:
        names = given["names"]
        stations = pd.DataFrame(
            {
                "id": names,
                "latitude": given["latitude"],
                "longitude": given["longitude"],
                "elevation": given["elevation_m"],
            }
        )
        picks = pd.DataFrame(
            {
                "station": names[given["station"]],
                "phase": np.where(given["is_p"], "P", "S"),
                "time": given["time_s"],
            }
        )
    associator = _associator(pyocto, stations, settings)
    stations = associator.transform_stations(stations)
    events, assignments = associator.associate(picks, stations)
    columns = ("time", "latitude", "longitude", "depth")
    if len(events):
        events = associator.transform_events(events)
        number = events["idx"].to_numpy()
        found = {name: events[name].to_numpy(float) for name in columns}
    else:
        number, found = np.empty(0, np.int64), {name: np.empty(0) for name in columns}
    np.savez(
        folder / "output.npz",
        idx=number,
        event=assignments["event_idx"].to_numpy(np.int64),
        pick=assignments["pick_idx"].to_numpy(np.int64),
        residual=assignments["residual"].to_numpy(float),
        **found,
    )


def _associator(pyocto: Any, stations: Any, settings: dict[str, Any]) -> Any:
    north = settings["margin_km"] / _KM_PER_DEGREE
    low, high = stations["latitude"].min(), stations["latitude"].max()
    east = north / math.cos(math.radians((low + high) / 2))
    left, right = stations["longitude"].min(), stations["longitude"].max()
    if settings["travel_times"]:
        model = pyocto.VelocityModel1D(
            settings["travel_times"],
            tolerance=settings["tolerance_s"],
            association_cutoff_distance=settings["cutoff_km"],
            surface_p_velocity=settings["p_velocity"],
            surface_s_velocity=settings["s_velocity"],
        )
    else:
        model = pyocto.VelocityModel0D(
            p_velocity=settings["p_velocity"],
            s_velocity=settings["s_velocity"],
            tolerance=settings["tolerance_s"],
            association_cutoff_distance=settings["cutoff_km"],
        )
    across = _KM_PER_DEGREE * math.hypot(
        high - low + 2 * north,
        (right - left + 2 * east) * math.cos(math.radians((low + high) / 2)),
    )
    optional = {} if settings["threads"] is None else {"n_threads": settings["threads"]}
    return pyocto.OctoAssociator.from_area(
        lat=(low - north, high + north),
        lon=(left - east, right + east),
        zlim=tuple(settings["depth_km"]),
        velocity_model=model,
        # The slowest wave across the area and up from the deepest origin.
        time_before=math.hypot(across, settings["depth_km"][1]) / settings["s_velocity"],
        pick_match_tolerance=settings["pick_tolerance_s"],
        n_picks=settings["n_picks"],
        n_p_picks=settings["n_p"],
        n_s_picks=settings["n_s"],
        n_p_and_s_picks=settings["n_p_and_s"],
        **optional,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
