"""Scenarios, a module for each subject. Every module here is imported: a new file needs no entry anywhere."""
