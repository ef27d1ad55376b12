"""Placement of windows on a record, and stacking of their predictions into one curve."""
