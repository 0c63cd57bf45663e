"""Packages for code-execution challenges: built, rehearsed as their runtime runs them, and checked."""
