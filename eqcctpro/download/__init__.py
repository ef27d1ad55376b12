"""Waveforms and station metadata from FDSN web services."""

from eqcctpro.download.run import download
from eqcctpro.download.settings import DownloadSettings

__all__ = ["DownloadSettings", "download"]
