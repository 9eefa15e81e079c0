"""Fetch a checkpoint from a Hugging Face hub: what a model server reads, and nothing else.

Files come one after the other into DIR.partial, are compared with the hub's own checksums, and
the directory takes its name when all of them are there. What was fetched before an interruption is
kept, and a file goes on where it was. Pickled weights are never fetched: they can run code.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from services.kit.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

ALLOWED: Final = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "LICENSE*",
)
"""What is fetched; files in folders only where the folder is named."""
RECORD: Final = "source.json"
"""Says where a fetched checkpoint came from."""
_CHUNK_BYTES: Final = 1 << 20

Progress = Callable[[str, int, int], None]
"""Told the file's name, the bytes of it that are here, and its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A checkpoint that was fetched."""

    repo: str
    revision: str
    """As asked for: a branch, a tag or a commit."""
    commit: str
    files: dict[str, int]
    """Sizes in bytes."""


def pull(
    repo: str,
    target: Path,
    *,
    revision: str = "main",
    also: tuple[str, ...] = (),
    progress: Progress = lambda *_: None,
) -> Pulled:
    """Fetch *repo* at *revision* to the new directory *target*; *also* allows more patterns.

    The hub is HF_ENDPOINT's, the token HF_TOKEN's or that of a login. Raises ConfigError for what
    will not get better, UnavailableError for what may when it is tried again.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already: remove it, or name another directory")
    hub = _Hub.of(repo)
    commit, files = hub.listed(revision, (*ALLOWED, *also))
    partial = target.with_name(f"{target.name}.partial")
    for file in files:
        hub.fetch(file, commit, partial / file.path, progress)
    sizes = {file.path: file.size for file in files}
    found = Pulled(repo=repo, revision=revision, commit=commit, files=sizes)
    record = {"repo": repo, "revision": revision, "commit": commit}
    try:
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        partial.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}") from error
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hub:
    """One repository on the hub, through its own library, which is imported when needed."""

    repo: str
    library: Any
    http_get: Callable[..., None]
    at: str | None
    """The hub's address; None: the public one."""

    @classmethod
    def of(cls, repo: str) -> "_Hub":
        try:
            import huggingface_hub  # noqa: PLC0415 - an extra
            from huggingface_hub import file_download, utils  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "fetching models needs huggingface_hub: pip install 'zeta[hub]'"
            ) from None
        quiet: Any = utils  # type checkers do not find what it exports
        quiet.disable_progress_bars()
        quiet.logging.set_verbosity_error()
        try:
            quiet.validate_repo_id(repo)
        except ValueError as error:
            raise ConfigError(f"{repo!r} names no repository: {error}") from error
        address = os.environ.get("HF_ENDPOINT") or None
        return cls(repo=repo, library=huggingface_hub, http_get=file_download.http_get, at=address)

    def listed(self, revision: str, allowed: tuple[str, ...]) -> "tuple[str, list[RepoFile]]":
        """Return the commit of *revision* and the *allowed* files in it, the small ones first."""
        api = self.library.HfApi(endpoint=self.at)
        with _translated(self.library, f"{self.repo}@{revision}"):
            commit = api.repo_info(self.repo, revision=revision).sha
            tree = list(api.list_repo_tree(self.repo, revision=commit, recursive=True))
        files = [f for f in tree if hasattr(f, "size") and _allowed(f.path, allowed)]
        if not any(f.path.endswith(".safetensors") for f in files):
            raise ConfigError(
                f"{self.repo}@{revision} holds no safetensors weights (pickled weights are not "
                "fetched: they can run code); name a repository or revision that does"
            )
        return str(commit), sorted(files, key=lambda f: (f.size, f.path))

    def fetch(self, file: "RepoFile", commit: str, path: Path, progress: Progress) -> None:
        """Bring *file* to *path*, and make sure of it."""
        if path.exists() and _right(path, file):
            progress(file.path, file.size, file.size)
            return
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as out:
                self._append(file, commit, _Counted(out, file, progress))
            if not _right(part, file):
                part.unlink()
                raise UnavailableError(
                    f"{file.path} came with another checksum than the hub states: try again"
                )
            part.rename(path)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}; then try again") from error

    def _append(self, file: "RepoFile", commit: str, out: "_Counted") -> None:
        url = self.library.hf_hub_url(self.repo, file.path, revision=commit, endpoint=self.at)
        headers = self.library.utils.build_hf_headers(library_name="zeta")
        # As it is stored: what is compressed on the way has another size, and cannot be resumed.
        headers["Accept-Encoding"] = "identity"
        have = out.tell()
        if have > file.size:
            out.seek(0)
            out.truncate()
            have = 0
        with _translated(self.library, f"{self.repo}: {file.path}"):
            self.http_get(
                url,
                cast("BinaryIO", out),
                resume_size=have,
                headers=headers,
                expected_size=file.size,
            )


class _Counted:
    """A file that tells how much of it is there."""

    def __init__(self, out: BinaryIO, file: "RepoFile", progress: Progress) -> None:
        self._out, self._file, self._progress = out, file, progress
        self.seek, self.tell, self.truncate, self.flush = (
            out.seek,
            out.tell,
            out.truncate,
            out.flush,
        )

    def write(self, data: bytes) -> int:
        """Write, and tell."""
        written = self._out.write(data)
        self._progress(self._file.path, self._out.tell(), self._file.size)
        return written


@contextmanager
def _translated(library: Any, what: str) -> Iterator[None]:
    """Turn the hub's errors into ours."""
    kinds = library.errors
    try:
        yield
    except kinds.GatedRepoError as error:
        raise ConfigError(
            f"{what}: access must be granted first: accept its terms on the hub, and set HF_TOKEN"
        ) from error
    except (kinds.RepositoryNotFoundError, kinds.RevisionNotFoundError) as error:
        raise ConfigError(
            f"{what}: the hub knows none; mind the spelling, and set HF_TOKEN for a private one"
        ) from error
    except kinds.HTTPError as error:
        raise UnavailableError(f"{what}: {_first_line(error)}") from error
    except OSError as error:
        if error.errno is not None:  # the disk's, not the hub's
            raise
        raise UnavailableError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _allowed(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern names *path*; a star does not reach into folders."""
    return any(
        path.count("/") == pattern.count("/") and fnmatchcase(path, pattern) for pattern in patterns
    )


def _right(path: Path, file: "RepoFile") -> bool:
    """Compare with the hub's checksum: SHA-256 of large files, git's own of small ones."""
    if path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return _digest(path, hashlib.sha256()) == file.lfs.sha256
    git = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    return _digest(path, git) == file.blob_id


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
