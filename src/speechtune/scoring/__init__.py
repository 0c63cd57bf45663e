"""Scoring: normalisers, alignment, error rates with intervals, paired comparison, term recall."""
