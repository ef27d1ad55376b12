"""Settings of the association."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eqcctpro.errors import SettingsError

__all__ = ["AssociationSettings"]

_FEWEST_STATIONS = 3


@dataclass(frozen=True)
class AssociationSettings:
    """Settings of association: criteria of an event, and the volume that is searched.

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
    n_picks, n_p, n_s, n_p_and_s : int or None
        Least number of picks, P picks, S picks, and stations with both.  None takes PyOcto's
        10, 3, 3 and 3, in a small network what all stations but one give: see `for_stations`.
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
    n_picks: int | None = None
    n_p: int | None = None
    n_s: int | None = None
    n_p_and_s: int | None = None
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
            "n_picks": min(self.n_picks or 0, self.n_p or 0, self.n_s or 0) >= 0,
            "n_p_and_s": (self.n_p_and_s or 0) >= 0,
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

    def for_stations(self, count: int) -> AssociationSettings:
        """The settings with all numbers of picks, for so many stations that have picks.

        An event of a network has at most a P and an S at each station, so that four stations can
        never give PyOcto's ten picks.  Where that is more than all stations but one give, it is
        that: 6 picks of 4 stations.  Three are the fewest that say where an event was.

        Raises
        ------
        SettingsError
            More is asked for than the stations can give.
        """
        others = max(count, _FEWEST_STATIONS) - 1
        usual = {"n_picks": min(10, 2 * others)}
        usual |= dict.fromkeys(("n_p", "n_s", "n_p_and_s"), min(3, others))
        given = {name: value for name in usual if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            most = 2 * count if name == "n_picks" else count
            if value > most:
                raise SettingsError(
                    f"{name}: an event is to have {value}, and {count} stations with picks give "
                    f"{most} at most",
                    hint=f"--{name.replace('_', '-')} {min(usual[name], most)}, or leave it out",
                )
        return replace(self, **(usual | given))
