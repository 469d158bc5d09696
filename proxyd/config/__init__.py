"""Configuration: reading and editing models.yaml, settings, API keys, file locations, and the table of routes."""
