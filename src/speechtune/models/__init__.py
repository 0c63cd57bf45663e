"""Model families behind one protocol; adapters; where models come from."""
