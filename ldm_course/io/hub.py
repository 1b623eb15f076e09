"""Where a model is: a folder, or a repository on the Hugging Face hub, whose files are fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldm_course.errors import InputError
from ldm_course.io.bundled import bundled_path
from ldm_course.io.weights import STEMS, variants, weight_files, weight_patterns

SMALL_FILES = ["model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt"]
SMALL_FILES += [f"{part}/config.json" for part in STEMS]


def locate(source: str | Path | None, revision: str | None) -> tuple[Path, str | None]:
    """The model's folder on this machine, and its id if it is on the hub; then only the small files are fetched."""
    if not isinstance(source, (str, Path, type(None))):
        raise InputError(f"A model is named by a folder or by a hub id like 'owner/name', not by {source!r}.")
    folder = Path(os.path.expanduser(bundled_path() if source is None else source))
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not os.path.exists(folder):
        from huggingface_hub import snapshot_download

        with _hub_errors(source):
            return Path(snapshot_download(source, revision=revision, allow_patterns=SMALL_FILES)), source
    if not str(source).strip() or not os.path.isdir(folder):
        raise InputError(
            f"There is no folder {str(folder)!r}; pass one in diffusers' format (no single file), or a hub id like "
            "'owner/name'."
        )
    if revision is not None:
        raise InputError(f"The revision {revision!r} is for models on the hub; leave it out for the folder {folder}.")
    return folder, None


def fetch_weights(hub_id: str, folder: Path, half: bool) -> None:
    """Fetch each part's weights into the snapshot `folder`: the preferred variant, or else the other one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    lacking = list(STEMS)
    for variant in variants(half):
        # With one file that is there, because the hub's client warns if nothing matches.
        patterns = ["model_index.json", *(name for part in lacking for name in weight_patterns(part, variant))]
        with _hub_errors(hub_id), suppress(LocalEntryNotFoundError):  # offline, the other variant may be cached
            snapshot_download(hub_id, revision=folder.name, allow_patterns=patterns)
        lacking = [part for part in lacking if not weight_files(folder / part, variant)]
        if not lacking:
            return


@contextmanager
def _hub_errors(hub_id: str) -> Iterator[None]:
    """Pass the hub's own words on in an InputError."""
    try:
        yield
    except Exception as error:  # also the network library's, which differs between versions of huggingface_hub
        words = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"The model {hub_id!r} could not be fetched ({type(error).__name__}: {words}).") from error
