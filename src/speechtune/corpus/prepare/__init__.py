"""``speechtune prepare``: a policy applied to a corpus, resumably and reversibly."""
