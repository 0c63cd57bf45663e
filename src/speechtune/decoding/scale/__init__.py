"""Transcription of more files than memory holds: sharded, restartable, one line for every input."""
