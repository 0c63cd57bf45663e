"""Text normalisers as pipelines of named rules; `speechtune.scoring.normalisers` names and chooses them."""
