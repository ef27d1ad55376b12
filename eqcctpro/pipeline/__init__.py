"""Decoding, windows, network and picking joined in one process."""
