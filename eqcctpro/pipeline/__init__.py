"""Picking engine: waveforms with a ticket in, picks with that ticket out."""
