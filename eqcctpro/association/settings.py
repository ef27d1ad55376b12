"""Settings of the association."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import SettingsError

__all__ = ["AssociationSettings"]


@dataclass(frozen=True)
class AssociationSettings:
    """What counts as an event, and where events are looked for.

    The velocities are those of the upper continental crust, with a Poisson solid's ratio of 1.73;
    the other defaults are PyOcto's, or suit a local network.

    Attributes
    ----------
    p_velocity, s_velocity : float
        Of a homogeneous earth, km/s.
    travel_times : Path or None
        PyOcto's table of a layered model (``VelocityModel1D.create_model``), instead of the
        velocities.
    tolerance_s : float
        How far the earth's travel times may be off.
    pick_tolerance_s : float
        Largest difference between a pick and the time that the final origin predicts.
    depth_km : tuple of float
        Shallowest and deepest origin.
    margin_km : float
        Events are looked for this far beyond the outermost stations.
    cutoff_km : float or None
        Only stations up to this distance take part in finding an event.
    n_picks, n_p, n_s, n_p_and_s : int
        Least number of picks, P picks, S picks, and stations with both.
    threads : int or None
        None takes all cores.
    """

    p_velocity: float = 6.0
    s_velocity: float = 6.0 / 1.73
    travel_times: Path | None = None
    tolerance_s: float = 1.5
    pick_tolerance_s: float = 1.5
    depth_km: tuple[float, float] = (0.0, 30.0)
    margin_km: float = 30.0
    cutoff_km: float | None = 150.0
    n_picks: int = 10
    n_p: int = 3
    n_s: int = 3
    n_p_and_s: int = 3
    threads: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "p_velocity": self.p_velocity > self.s_velocity,
            "s_velocity": self.s_velocity > 0,
            "tolerance": self.tolerance_s > 0,
            "pick_tolerance": self.pick_tolerance_s > 0,
            "depth": self.depth_km[1] > self.depth_km[0],
            "margin": self.margin_km >= 0,
            "cutoff": self.cutoff_km is None or self.cutoff_km > 0,
            "n_picks": min(self.n_picks, self.n_p, self.n_s, self.n_p_and_s) >= 0,
            "threads": self.threads is None or self.threads >= 1,
        }
        if wrong := [name for name, right in rules.items() if not right]:
            raise SettingsError(
                f"out of range: {', '.join(wrong)}",
                hint="velocities, tolerances and distances are positive, P is faster than S, and "
                "the deeper limit comes second",
            )
        if self.travel_times is not None and not self.travel_times.is_file():
            raise SettingsError(f"travel_times: {self.travel_times} is not there")
