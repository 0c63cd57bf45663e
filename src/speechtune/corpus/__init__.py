"""The utterance table, how recordings become one, and how it is divided into splits."""
