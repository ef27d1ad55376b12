"""Made-up recordings whose arrivals are known."""

from eqcctpro.synthetic.network import TrueArrival, synthetic_network

__all__ = ["TrueArrival", "synthetic_network"]
