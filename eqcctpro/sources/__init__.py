"""Waveforms of an archive on their way to the pipeline: files are read, decoded and cut."""
