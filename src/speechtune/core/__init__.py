"""Errors, files, configuration, provenance, progress: what every room may use."""
