"""What a picker is, and where its weights come from."""

from eqcctpro.models.cache import prepare_seisbench_import

prepare_seisbench_import()
