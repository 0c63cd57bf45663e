"""Word and token n-gram language models: training, ARPA, interpolation, rescoring, shallow fusion."""
