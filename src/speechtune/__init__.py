"""speechtune: from a folder of recordings to a measurably better speech recogniser."""

__version__ = "0.1.0"
