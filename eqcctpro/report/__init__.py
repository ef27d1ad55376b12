"""Pictures and pages of one run: overview, report and record sections."""
