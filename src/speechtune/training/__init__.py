"""The training loop on the Hugging Face Trainer, its data, its checks, and the run it leaves."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at import of a kernel that nothing here needs
