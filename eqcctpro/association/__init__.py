"""Picks that belong together become events."""

from eqcctpro.association.associate import Association, associate
from eqcctpro.association.settings import AssociationSettings
from eqcctpro.station_coordinates import StationTable, read_stations

__all__ = ["Association", "AssociationSettings", "StationTable", "associate", "read_stations"]
