"""Scenarios, one module per subject. Every module here is imported automatically."""
