"""How strong the motion is that was picked."""

from eqcctpro.amplitudes.measure import measure_amplitudes
from eqcctpro.amplitudes.writing import write_amplitudes

__all__ = ["measure_amplitudes", "write_amplitudes"]
