"""Recordings longer than the model's window, with memory that does not grow with their length."""
