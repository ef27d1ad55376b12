"""Input archives: their files, stations and time chunks, and the plan of a run."""
