"""Amplitudes of the motion that was picked."""

from eqcctpro.amplitudes.measure import measure_amplitudes
from eqcctpro.amplitudes.writing import write_amplitudes

__all__ = ["measure_amplitudes", "write_amplitudes"]
