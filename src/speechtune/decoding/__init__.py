"""Transcripts from audio: batching, audio context, limits."""
