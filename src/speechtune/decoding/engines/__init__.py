"""What computes a transcript: torch (the family itself) or CTranslate2, behind the same interface."""
