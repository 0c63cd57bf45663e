"""The training loop on the Hugging Face Trainer, its data, its checks, and the run it leaves."""
