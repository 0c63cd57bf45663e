"""The catalogue of speech models: what there is, what it needs, what to try first."""
