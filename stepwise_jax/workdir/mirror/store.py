"""The place of a mirror: files below a URL, reached through fsspec, and the manifest that says which of them count."""

import contextlib
import json
import posixpath
from pathlib import Path
from typing import Any

import fsspec

from stepwise_jax.errors import InputError, first_line

MANIFEST = "mirror.json"
"""Written last: what it lists is complete, and everything else does not count."""

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "az")

Manifest = dict[str, Any]
"""`{"owner": the process that writes, "files": {path: size}}`."""


class Store:
    """Files below a URL. Every method raises `OSError` or what the store's library raises if the place fails."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, url: str):
        self._filesystem, self._root, self._made = filesystem, root, set[str]()
        self.url = url

    def read_manifest(self) -> Manifest | None:
        """The manifest, or None where there is no mirror yet."""
        # What was listed a while ago may have been written by another process since.
        self._filesystem.invalidate_cache()
        try:
            return json.loads(self._filesystem.cat_file(self._path(MANIFEST)))
        except FileNotFoundError:
            return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest, in one write."""
        self._make_folder(self._root)
        self._filesystem.pipe_file(self._path(MANIFEST), json.dumps(manifest).encode())

    def upload(self, folder: Path, name: str) -> None:
        """Copy a file of the folder."""
        target = self._path(name)
        self._make_folder(posixpath.dirname(target))
        self._filesystem.put_file(str(folder / name), target)

    def download(self, name: str, folder: Path) -> None:
        """Copy a file into the folder."""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        self._filesystem.get_file(self._path(name), str(folder / name))

    def remove(self, name: str) -> None:
        """Remove a file; it does not matter if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(name))

    def below(self, name: str) -> "Store":
        """The place of a folder below this one."""
        return Store(self._filesystem, self._path(name), f"{self.url}/{name}")

    def mirrors_below(self) -> list[str]:
        """The paths of the folders below this place that have a manifest of their own."""
        self._filesystem.invalidate_cache()
        names = [path.removeprefix(f"{self._root}/") for path in self._filesystem.find(self._root)]
        return sorted(posixpath.dirname(name) for name in names if name.endswith(f"/{MANIFEST}"))

    def _make_folder(self, path: str) -> None:
        """Make a folder once; object stores have none, and would be asked about it over the network."""
        if path not in self._made and self.url.partition("://")[0] not in _OBJECT_STORES:
            self._filesystem.makedirs(path, exist_ok=True)
            self._made.add(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_store(url: str) -> Store:
    """The place of a URL such as `s3://bucket/run`, `gs://bucket/run` or `file:///folder/run`.

    Raises:
      InputError: for a URL of an unknown kind, or whose library is missing.
    """
    if "://" not in url:
        raise InputError(
            f"--mirror is {url!r}: it must be a URL, such as s3://bucket/run, gs://bucket/run or file:///run"
        )
    try:
        filesystem, root = fsspec.url_to_fs(url)
    except ImportError as error:
        kind = url.partition("://")[0]
        extra = {"s3": "pip install s3fs", "gs": "pip install gcsfs"}.get(kind, first_line(error))
        raise InputError(f"--mirror is {url!r}: {kind}:// needs a library that is missing: {extra}") from error
    except ValueError as error:
        raise InputError(f"--mirror is {url!r}: {first_line(error)}") from error
    return Store(filesystem, root.rstrip("/"), url)
