"""What a corpus covers, what to record next, and how much it may bring."""
