"""Probability curves to picks, and picks to tables and files."""
