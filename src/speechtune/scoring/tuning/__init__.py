"""``speechtune tune-decoding``: the decoding settings that suit a model and a kind of speech."""
