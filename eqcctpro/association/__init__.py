"""Picks that belong together become events."""

from eqcctpro.association.associate import Association, associate
from eqcctpro.association.magnitudes import ATTENUATIONS, Magnitudes, local_magnitudes
from eqcctpro.association.settings import AssociationSettings
from eqcctpro.station_coordinates import StationTable, read_stations

__all__ = [
    "ATTENUATIONS",
    "Association",
    "AssociationSettings",
    "Magnitudes",
    "StationTable",
    "associate",
    "local_magnitudes",
    "read_stations",
]
