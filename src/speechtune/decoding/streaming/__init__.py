"""Live transcription: text that is committed while the speaker goes on, and never changes afterwards."""
