"""Where a model is: a folder, or a repository on the Hugging Face hub, whose files are fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ldm_course.errors import InputError, brief
from ldm_course.io.weights import PARTS_WITH_WEIGHTS, variants, weight_files, weight_patterns


def bundled_path() -> Path:
    """The folder of the model that ships with the package, in diffusers' format."""
    return Path(__file__).parents[1] / "pretrained"


def locate(source: str | Path | None, revision: str | None, half: bool) -> Path:
    """The model's folder on this machine, fetched from the hub if `source` is an id there."""
    if source is None:
        source = bundled_path()
        if not source.is_dir():
            raise InputError(
                f"The model that ships with the package is missing from {source}; install the package again, or "
                "pass a folder or a hub id."
            )
    if not isinstance(source, (str, Path)):
        raise InputError(f"A model is named by a folder or by a hub id like 'owner/name', not by {source!r}.")
    folder = Path(os.path.expanduser(source))
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not os.path.exists(folder):
        return _fetch(source, revision, half)
    if not str(source).strip() or not os.path.exists(folder):  # a name too long, too, is none
        raise InputError(f"There is no folder {str(source)!r}; pass one that exists, or a hub id like 'owner/name'.")
    if not folder.is_dir():
        raise InputError(
            f"The model {folder} is a file; pass a folder in diffusers' format, the one with model_index.json."
        )
    if revision is not None:
        raise InputError(f"The revision {revision!r} is for models on the hub; leave it out for the folder {folder}.")
    return folder


def _fetch(hub_id: str, revision: str | None, half: bool) -> Path:
    """Bring a hub repository's needed files into huggingface_hub's cache; returns the folder they are in.

    First configs and tokenizer; then, of each part's weights, the preferred variant, or else the other one.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub import utils as hub

    small = ["model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt"]
    small += [f"{part}/config.json" for part in PARTS_WITH_WEIGHTS]
    unreachable: Exception | None = None
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=small))
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"The hub repository {hub_id!r} is not in diffusers' format: it has no model_index.json."
            )
        commit = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else revision  # all files of one commit
        lacking = list(PARTS_WITH_WEIGHTS)
        for variant in variants(half):
            patterns = [pattern for part in lacking for pattern in weight_patterns(part, variant)]
            try:
                if lacking:  # with one file that is there, as the hub's client warns if nothing matches
                    snapshot_download(hub_id, revision=commit, allow_patterns=["model_index.json", *patterns])
            except hub.LocalEntryNotFoundError as error:  # offline; but the other variant may be in the cache
                unreachable = error
            lacking = [part for part in lacking if not weight_files(folder / part, variant)[0]]
        if lacking and unreachable:
            raise unreachable
        return folder
    except InputError:
        raise
    except Exception as error:  # also the network library's, which is another one in each major version
        raise InputError(_hub_trouble(error, hub_id, revision)) from error


def _hub_trouble(error: Exception, hub_id: str, revision: str | None) -> str:
    """What went wrong at the hub, and what to do, in one sentence."""
    from huggingface_hub import utils as hub

    cause: BaseException | None = error
    status: int | None = None
    while cause is not None and status is None:  # "not found here" may be caused by what the hub answered
        status = getattr(getattr(cause, "response", None), "status_code", None)
        cause = cause.__cause__
    if isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError):
        return (
            f"There is no folder and no public hub repository {hub_id!r}; check the spelling, or log in with "
            "`hf auth login` if it is private."
        )
    if isinstance(error, hub.GatedRepoError) or status in (401, 403):
        return (
            f"The hub does not give {hub_id!r} to everyone; accept its terms on its page there, then log in with "
            "`hf auth login`."
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"The hub repository {hub_id!r} has no revision {revision!r}; see its branches and tags there."
    if status is not None and (status == 429 or status >= 500):
        return f"The Hugging Face hub is busy (it answered {status}); ask for {hub_id!r} again in a few minutes."
    if isinstance(error, hub.LocalEntryNotFoundError):
        return (
            f"The model {hub_id!r} is not whole on this machine and the Hugging Face hub cannot be reached; connect "
            "to the internet, unset HF_HUB_OFFLINE if it is set, or pass a folder."
        )
    return f"The model {hub_id!r} could not be fetched from the Hugging Face hub ({brief(error)})."
