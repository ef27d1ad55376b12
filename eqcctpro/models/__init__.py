"""Pickers: descriptions of models, their weights, and their conversion to array functions."""

from eqcctpro.models.cache import prepare_seisbench_import

prepare_seisbench_import()
