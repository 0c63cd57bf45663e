"""Several recognisers' transcripts of the same audio, or several models, made into one."""
