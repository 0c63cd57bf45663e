"""The model of a run on the Hugging Face hub: automatically after training, or with ``speechtune upload``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.errors import InputError, SpeechtuneError, missing_extra
from speechtune.core.files import read_json, write_json, write_text
from speechtune.core.progress import note

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe

UPLOAD = "upload.json"
"""What became of a run's upload."""


class UploadConfig(BaseModel):
    """Where the finished model is uploaded."""

    model_config = ConfigDict(extra="forbid")

    repo: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="owner/name on the Hugging Face hub; none: no upload.",
    )
    private: bool = Field(True, description="Whether a repository that is made anew is private.")


def check_upload(config: UploadConfig) -> None:
    """Refuse, before any work is done for it, an upload that cannot be made.

    Raises:
        InputError: huggingface_hub is not installed.
    """
    if config.repo is None:
        return
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub") from error


def upload_when_asked(recipe: Recipe, run: Path, api: Any = None) -> dict[str, Any] | None:
    """Upload a finished run where its recipe says so; a failure is one note with the command to try again.

    Returns:
        What ``upload.json`` says, or ``None`` where no upload is asked for.
    """
    if recipe.upload.repo is None:
        return None
    try:
        found = upload_run(run, recipe.upload.repo, recipe.upload.private, api)
        note(f"uploaded to {found['url']}")
    except SpeechtuneError as error:
        found = {"repo": recipe.upload.repo, "uploaded": False, "reason": str(error)}
        write_json(run / UPLOAD, found)
        note(f"warning: {error}")
    return found


def upload_run(run: Path, repo: str | None = None, private: bool | None = None, api: Any = None) -> dict[str, Any]:
    """Upload ``run/model`` with a model card.

    Args:
        run: a finished run; it is complete whatever becomes of the upload.
        repo: ``owner/name``; as its recipe says when not given.
        private: for a repository that is made anew; as its recipe says when not given.
        api: a ``huggingface_hub.HfApi``; its own by default.

    Raises:
        InputError: no finished run, or no repository named.
        SpeechtuneError: the upload failed; the sentence holds the command to try again.
    """
    from speechtune.training.recipe import load_recipe

    if not (run / "run.json").is_file():
        raise InputError(f"{run} is not a finished run (no run.json): finish it with speechtune train … --resume")
    config = load_recipe(run / "recipe.yaml").upload
    chosen = UploadConfig.model_fields["repo"].default if repo is None else repo
    name = chosen or config.repo
    if name is None:
        raise InputError(f"{run} names no repository: add --repo owner/name")
    import re

    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is None:
        raise InputError(f"{name} is not owner/name: correct it")
    check_upload(UploadConfig(repo=name))
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    write_text(run / "model" / "README.md", model_card(run))
    try:
        api.create_repo(name, repo_type="model", private=config.private if private is None else private, exist_ok=True)
        api.upload_folder(
            repo_id=name, repo_type="model", folder_path=str(run / "model"), commit_message="speechtune train"
        )
    except Exception as error:  # huggingface_hub and httpx raise a dozen unrelated types
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpeechtuneError(
            f"{run} is complete, but its upload to {name} failed ({first}): check the token (hf auth login) and the "
            f"network, then run speechtune upload {run} --repo {name}"
        ) from error
    found = {"repo": name, "uploaded": True, "url": f"https://huggingface.co/{name}"}
    write_json(run / UPLOAD, found)
    return found


def model_card(run: Path) -> str:
    """A short model card: base, data, and every measured WER; it claims nothing that the run does not hold."""
    summary, facts = read_json(run / "run.json"), read_json(run / "provenance.json")
    base = facts.get("base", {}).get("name", "unknown")
    header = ["---", "library_name: transformers", "pipeline_tag: automatic-speech-recognition", "---", ""]
    lines = [*header, f"# {run.resolve().name}", "", f"Fine-tuned from {base} with speechtune.", ""]
    lines += ["| set | audio context | WER before | WER after |", "|---|---|---|---|"]
    for row in summary.get("comparisons", []):
        before, after = (f"{100 * row[key]:.1f} %" for key in ("wer_before", "wer_after"))
        lines.append(f"| {row['set']} | {row['context_after']} | {before} | {after} |")
    contexts = ", ".join(read_json(run / "model" / "speechtune.json").get("audio_contexts", ["full"]))
    lines += [
        "",
        f"Trained for the audio context: {contexts}. WER is corpus-level, in per cent of the reference words.",
    ]
    return "\n".join(lines) + "\n"
