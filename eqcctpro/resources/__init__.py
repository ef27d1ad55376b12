"""Hardware of the machine, and measurement and planning of the resources of a run."""
