"""Diagnosis of this machine: hardware, software, models, and what to fix."""

from eqcctpro.doctor.check import Check, Status
from eqcctpro.doctor.examine import examine

__all__ = ["Check", "Status", "examine"]
