"""Sinks of a live run: where its messages about picks go."""
