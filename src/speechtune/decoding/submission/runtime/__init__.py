"""What is copied into a package: needs numpy, soundfile, and torch with transformers or ctranslate2; no speechtune."""
