"""What a run has already got, kept so that a killed run goes on where it was."""
