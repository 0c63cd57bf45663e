"""Models in the formats of other runtimes, each one checked in that runtime before it is called done."""
