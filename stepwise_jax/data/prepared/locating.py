"""Where prepared data sets are on disk."""

import difflib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from stepwise_jax.data.sources.catalog import PublishedDataset
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.formatting import parse_path, program_name

NAMESPACE = "stepwise_"
"""Prefix of our data sets' names on disk, so that none is confused with TFDS's own data set of that name."""

_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>\w[\w.\-]*))?(:(?P<version>\d+\.\d+\.\d+))?")


def data_dir(data: DataConfig) -> Path:
    """The folder of prepared data sets: `data.data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      InputError: as `local_path`.
    """
    if data.data_dir is not None:
        return local_path("data.data_dir", data.data_dir)
    if chosen := os.environ.get("TFDS_DATA_DIR"):
        return local_path("TFDS_DATA_DIR", chosen)
    return local_path("data.data_dir", "~/tensorflow_datasets")


def local_path(name: str, text: str) -> Path:
    """The path that the field or variable `name` holds, with `~` for the home folder expanded.

    Raises:
      InputError: for an empty text, a URL, a home folder that is unknown, or a relative path in a folder that no longer
        exists.
    """
    if not text:
        raise InputError(f"{name} is empty: it must be a path")
    try:
        return parse_path(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def dataset_folder(name: str, data_dir: Path) -> Path:
    """The folder of all versions of a data set of ours: data_dir/stepwise_NAME."""
    return data_dir / (NAMESPACE + name)


def prepared_folder(name: str, version: str, fingerprint: str | None, data_dir: Path) -> Path:
    """The folder of a data set of ours: data_dir/stepwise_NAME[/FINGERPRINT]/VERSION."""
    return dataset_folder(name, data_dir) / (fingerprint or "") / version


def is_ours(folder: Path) -> bool:
    """Whether `prepare` wrote the data set in a folder NAME[/CONFIG]/VERSION, by its name."""
    return any(parent.name.startswith(NAMESPACE) for parent in list(folder.parents)[:2])


def find(name: str, data_dir: Path) -> Path | None:
    """The folder of data set NAME[/CONFIG][:VERSION] under `data_dir`, in its newest version; None if there is none.

    Raises:
      InputError: if it is prepared in several configurations and the name gives none.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    folder = data_dir / parts["name"] / (parts["config"] or "")
    versions = _versions(folder, parts["version"]) or _versions(_only_config(name, folder), parts["version"])
    return max(versions, key=_version_numbers, default=None)


def prepared_versions(name: str, data_dir: Path) -> list[str]:
    """The versions in which a data set of ours is prepared."""
    return sorted(path.name for path in _versions(data_dir / (NAMESPACE + name), None))


def _versions(folder: Path, version: str | None) -> list[Path]:
    found = [path.parent for path in folder.glob("*/dataset_info.json") if _version_numbers(path.parent)]
    return [path for path in found if version in (None, path.name)]


def _version_numbers(path: Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", path.name) else ()


def _only_config(name: str, folder: Path) -> Path:
    configs = sorted(path for path in folder.glob("*") if _versions(path, None))
    if len(configs) > 1:
        several = ", ".join(path.name for path in configs)
        raise InputError(f"data.name is {name!r}: it is prepared as {several}; name one as {name}/{configs[0].name}")
    return configs[0] if configs else folder / "none"


def check_root(data: DataConfig, automatic: Collection[str]) -> None:
    """Refuse `data.root` where it would not be used.

    Args:
      data: which data set is trained on.
      automatic: the names of those that training prepares itself.

    Raises:
      InputError: if there is a root, and the data set is not image_folder.
    """
    if data.root is None or data.name == "image_folder":
        return
    command = f"; `{program_name()} prepare {data.name} --from {data.root}` prepares another data set, once"
    raise InputError(
        f"data.root is {data.root!r}: only image_folder is trained on from a folder"
        f"{'' if data.name in automatic else command}"
    )


def unknown_dataset_error(name: str, data_dir: Path, preparable: Sequence[str]) -> InputError:
    """The error for a data set that does not exist, with the nearest names."""
    folders = [path.name for path in data_dir.iterdir() if path.is_dir()] if data_dir.is_dir() else []
    others = [folder for folder in folders if not folder.startswith(NAMESPACE)]
    near = difflib.get_close_matches(name, [*preparable, *others])
    known = f"prepare can make {', '.join(preparable)}"
    hint = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else known
    return InputError(f"data.name is {name!r}: no such data set is known or prepared under {str(data_dir)!r}; {hint}")


def not_prepared_error(name: str, folder: Path, published: PublishedDataset | None) -> InputError:
    """The error for a data set that could be prepared; `published` is its entry if `prepare` knows it itself."""
    if published is None:
        return InputError(
            f"data.name is {name!r}: it is not prepared under {str(folder)!r}; prepare it with "
            f"`{program_name()} prepare {name}`, which needs the extra 'tensorflow'"
        )
    option = "" if published.download else " --from PATH"
    others = prepared_versions(name, folder)
    note = f", only as {', '.join(others)} by another version of this package" if others else ""
    return InputError(
        f"data.name is {name!r}: version {published.version} is not prepared under {str(folder)!r}{note}; "
        f"prepare it with `{program_name()} prepare {name}{option}`"
    )
