"""Auditing a corpus: measure every utterance once, then judge the measures by a policy."""
