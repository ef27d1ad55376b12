"""Journal of a run on disk, from which an interrupted or killed run is resumed."""
