"""One pick table, in the formats that other programs read."""

from eqcctpro.picks.formats.registry import FORMATS, ExportFormat, ExportOptions, write_picks

__all__ = ["FORMATS", "ExportFormat", "ExportOptions", "write_picks"]
