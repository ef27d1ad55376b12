"""Earlier place of `eqcctpro.station_coordinates`."""

from eqcctpro.notices import warn_user
from eqcctpro.station_coordinates import StationTable, read_stations

__all__ = ["StationTable", "read_stations"]

warn_user("eqcctpro.association.stations is now eqcctpro.station_coordinates", DeprecationWarning)
