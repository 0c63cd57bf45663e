"""Uploading a prepared corpus to the Hugging Face hub as a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError, missing_extra

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_repository(name: str) -> None:
    """Refuse what is not ``owner/name``, before any work is done for it."""
    if _NAME.fullmatch(name) is None:
        raise InputError(f"--push-to {name} is not owner/name: correct it")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub") from error


def push(folder: Path, name: str, public: bool = False, api: Any = None) -> str:
    """Upload ``folder`` to the data set ``name`` (made private unless ``public``); returns its address.

    Args:
        folder: what `prepare_corpus` made.
        name: ``owner/name``.
        public: whether everybody may read a repository that is made anew.
        api: a ``huggingface_hub.HfApi``; its own by default.

    Raises:
        SpeechtuneError: the upload failed; ``folder`` is complete and can be uploaded again.
    """
    check_repository(name)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name, repo_type="dataset", folder_path=str(folder), commit_message="speechtune prepare"
        )
    except Exception as error:  # huggingface_hub and httpx raise a dozen unrelated types
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpeechtuneError(
            f"{folder} is complete, but its upload to {name} failed ({first}): check the token (hf auth login) and the "
            f"network, then run hf upload {name} {folder} --repo-type dataset"
        ) from error
    return f"https://huggingface.co/datasets/{name}"
