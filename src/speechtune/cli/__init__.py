"""The command line: one thin file per verb; nothing heavy is imported before the verb runs."""
