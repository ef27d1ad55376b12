"""miniSEED to gap-aware arrays of one instrument."""
