"""Synthetic recordings with known arrivals."""

from eqcctpro.synthetic.network import TrueArrival, synthetic_network
from eqcctpro.synthetic.waveforms import Recording, synthetic_waveforms

__all__ = ["Recording", "TrueArrival", "synthetic_network", "synthetic_waveforms"]
