"""Model repositories on a hub. Only safetensors and text files are fetched, never pickles."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import tqdm as hub_tqdm  # type: ignore[attr-defined]

from .checkpoint import INDEX, SINGLE, pickled, read_checkpoint
from .errors import AssetUnavailable, LLMEditError, ModelUnavailable
from .events import Event
from .progress import Progress, in_thread, only_logging
from .storage import disk_errors, require_space

T = TypeVar("T")

_TIMEOUT = 10  # seconds for one look-up
_CONVERTER = "SFconvertbot"  # opens pull requests that add the safetensors form of a repository
_REMEDY = (
    "Point --model to a local folder, set HF_ENDPOINT to a mirror that can be reached, or map "
    "the name to a folder in $LLM_EDIT_HOME/models.toml."
)


def fetch_repo(
    repo: str, revision: str | None = None, *, offline: bool = False
) -> Generator[Event, None, Path]:
    """A folder with configuration, tokenizer and safetensors of a hub repository.

    A complete copy in the hub's cache is used as it is, without asking the hub, so that a
    session finds the model it was made on. Raises ModelUnavailable (out of reach, no such
    repository, gated, pickled weights only) and NoSpace.
    """
    only_logging("huggingface_hub")
    cached = _cached(repo, revision)
    if cached:
        return cached
    if offline or constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(f"{repo} is not in the cache, and offline was asked for.", _REMEDY)
    info = _ask(repo, lambda: _info(repo, revision))
    if not _has_weights(info) and revision is None:
        revision = _ask(repo, lambda: _converted_revision(repo))
        if revision:
            info = _ask(repo, lambda: _info(repo, revision))
    if not _has_weights(info):
        raise _no_safetensors(repo, info)
    yield from _download(repo, info)
    _remember(repo, revision or constants.DEFAULT_REVISION, info.sha)
    folder = _cached(repo, revision)
    if folder is None:
        raise ModelUnavailable(f"the download of {repo} is not complete.", "Try again.")
    return folder


def fetch_file(
    repo: str, file: str, revision: str | None, target: Path, *, size: int
) -> Generator[Event, None, None]:
    """One file of a repository, to `target`. Raises AssetUnavailable, NoSpace."""
    only_logging("huggingface_hub")
    try:
        _ask(repo, lambda: _info(repo, revision))  # downloads are tried for half a minute
    except ModelUnavailable as error:
        raise AssetUnavailable(error.message, error.remedy) from error
    progress = Progress("download", size, "B")
    folder = target.parent / "hub"

    def work() -> str:
        return hf_hub_download(
            repo,
            file,
            revision=revision,
            local_dir=folder,
            endpoint=_endpoint(),
            tqdm_class=_counting(progress),
        )

    try:
        with disk_errors(folder):
            got = yield from in_thread(work, progress)
    except LLMEditError:
        raise
    except Exception as error:  # the client's own exceptions differ between its versions
        raise AssetUnavailable(f"the download of {file} broke off ({_reason(error)}).") from error
    Path(got).rename(target)
    shutil.rmtree(folder)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _ask(repo: str, question: Callable[[], T]) -> T:
    """The hub's answer, or why there is none."""
    try:
        return question()
    except hub_errors.GatedRepoError as error:
        raise ModelUnavailable(
            f"{repo} is gated.",
            f"Ask for access on its page, log in with `hf auth login`, and try again. {_REMEDY}",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelUnavailable(f"{repo} has no such revision.") from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelUnavailable(
            f"the hub has no model {repo} (or it is private).",
            f"Check the spelling, or log in with `hf auth login`. {_REMEDY}",
        ) from error
    except Exception as error:  # the client's own exceptions differ between its versions
        raise ModelUnavailable(
            f"{repo} is not in the cache and the hub is out of reach ({_reason(error)}).", _REMEDY
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _info(repo: str, revision: str | None) -> Any:
    api = HfApi(endpoint=_endpoint())
    return api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT)


def _names(info: Any) -> list[str]:
    """Files at the top of the repository."""
    return [file.rfilename for file in info.siblings if "/" not in file.rfilename]


def _has_weights(info: Any) -> bool:
    return bool({SINGLE, INDEX} & set(_names(info)))


def _converted_revision(repo: str) -> str | None:
    """The open pull request with the safetensors form, made by the hub's own converter."""
    for discussion in HfApi(endpoint=_endpoint()).get_repo_discussions(repo):
        if (
            discussion.is_pull_request
            and discussion.status == "open"
            and discussion.author == _CONVERTER
            and "safetensors" in discussion.title
        ):
            return discussion.git_reference
    return None


def _no_safetensors(repo: str, info: Any) -> ModelUnavailable:
    names = _names(info)
    if any(name.endswith(".gguf") for name in names):
        return ModelUnavailable(
            f"{repo} has GGUF files and no safetensors.",
            "Download one of them and give its path to --model.",
        )
    return pickled(names, repo) or ModelUnavailable(f"{repo} has no weights in safetensors.")


def _wanted(name: str) -> bool:
    if name.endswith(".safetensors"):
        return name.startswith("model")  # not the second copies that some repositories keep
    return name.endswith((".json", ".jinja", ".model", ".txt"))


def _download(repo: str, info: Any) -> Generator[Event, None, None]:
    cache = Path(constants.HF_HUB_CACHE)
    files = [file for file in info.siblings if file.rfilename in _names(info)]
    files = [file for file in files if _wanted(file.rfilename)]
    total = sum(file.size or 0 for file in files)
    require_space(cache, total)
    progress = Progress("download", total, "B")

    def work() -> None:
        for file in sorted(files, key=lambda file: file.size or 0):
            hf_hub_download(
                repo,
                file.rfilename,
                revision=info.sha,
                endpoint=_endpoint(),
                tqdm_class=_counting(progress),
            )

    try:
        with disk_errors(cache):
            yield from in_thread(work, progress)
    except LLMEditError:
        raise
    except Exception as error:  # the client's own exceptions differ between its versions
        raise ModelUnavailable(
            f"the download of {repo} broke off ({_reason(error)}).",
            f"Try again: it goes on where it stopped. {_REMEDY}",
        ) from error


def _counting(progress: Progress) -> type[Any]:
    """A progress bar for the client: prints nothing, counts bytes, can stop the download."""

    class Counting(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            progress.advance(kwargs.get("initial") or 0)
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            progress.advance(n or 0)

    return Counting


def _folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _remember(repo: str, revision: str, commit: str) -> None:
    """Notes which commit a branch was, where the client keeps that."""
    if revision != commit:
        reference = _folder(repo) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)


def _cached(repo: str, revision: str | None) -> Path | None:
    """The snapshot in the hub's cache, if it is complete.

    Without a revision: of the main branch, else of the converter's pull request.
    """
    folder = _folder(repo)
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        commits = [revision]
    else:
        wanted = [folder / "refs" / (revision or constants.DEFAULT_REVISION)]
        if revision is None:
            wanted += sorted((folder / "refs" / "refs" / "pr").glob("*"))
        commits = [path.read_text().strip() for path in wanted if path.is_file()]
    for commit in commits:
        try:
            return read_checkpoint(folder / "snapshots" / commit).folder
        except ModelUnavailable:
            continue
    return None
