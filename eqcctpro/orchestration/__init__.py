"""Execution of station tasks: in this process, on Ray actors, or as Ray tasks."""
