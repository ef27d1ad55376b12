"""Where station tasks run: in this process, on Ray actors, or as Ray tasks."""
