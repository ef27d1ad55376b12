"""EQCCTPro: P and S arrivals from the waveforms of whole seismic networks."""

__version__ = "1.0.0.dev0"
