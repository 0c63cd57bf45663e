"""A checked artefact on the Hugging Face hub, with the card that was made from its measurements."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.training.upload import UploadConfig, check_upload

NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


def check_repository(name: str | None) -> None:
    """Refuse before the export what could not be uploaded after it.

    Raises:
        InputError: the name is not ``owner/name``, or huggingface_hub is not installed.
    """
    if name is None:
        return
    if re.fullmatch(NAME, name) is None:
        raise InputError(f"--upload {name} is not owner/name: correct it")
    check_upload(UploadConfig(repo=name, private=True))


def upload_artefact(folder: Path, name: str, private: bool, api: Any = None) -> dict[str, Any]:
    """Upload every file of an artefact that passed the gate.

    Args:
        folder: the artefact, with its card (``README.md``) and its manifest.
        name: ``owner/name``.
        private: for a repository that is made anew.
        api: a ``huggingface_hub.HfApi``; its own by default.

    Raises:
        SpeechtuneError: the upload failed; the artefact stays, and the sentence holds the command to try again.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, repo_type="model", folder_path=str(folder), commit_message=f"speechtune export {folder.name}"
        )
    except Exception as error:  # huggingface_hub and httpx raise a dozen unrelated types
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpeechtuneError(
            f"{folder} is complete, but its upload to {name} failed ({first}): check the token (hf auth login) and the "
            f"network, then run hf upload {name} {folder} --repo-type model"
        ) from error
    return {"repo": name, "private": private, "url": f"https://huggingface.co/{name}"}
