"""Reading, writing and measuring waveforms: float32, mono, 16 kHz unless a function says otherwise."""
