"""Checkpoints of other runtimes turned into plain Transformers directories: one file per format."""
