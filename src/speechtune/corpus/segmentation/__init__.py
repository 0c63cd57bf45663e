"""Long recordings into pieces that a model can take."""
