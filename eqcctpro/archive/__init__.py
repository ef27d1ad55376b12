"""What there is to pick: files, stations and time chunks."""
