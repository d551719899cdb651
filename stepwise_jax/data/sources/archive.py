"""Reads the files of a tar archive one after the other. No file is ever written under a name that an archive gives."""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from stepwise_jax.errors import InputError

# Above the largest file of any archive that is read here, CIFAR-100's 153.7 MB of training images.
_LARGEST = 256 << 20

_BLOCK = 1 << 20

_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def files(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names (without a leading "./") and contents of the regular files whose names are wanted, in the archive's order.

    Links, devices and pipes are passed over, never followed.

    Raises:
      InputError: if the archive cannot be read to its very end, holds a name that leads out of it, or an absurdly
        large file.
    """
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = _checked_name(path, member.name)
                if member.isreg() and wanted(name):
                    yield name, _content(path, archive, member)
            _drain(archive)
    except InputError:
        raise
    except OSError as error:
        told = f"cannot be read: {error.strerror}" if error.strerror else f"is no whole tar archive ({error})"
        raise InputError(f"{str(path)!r} {told}") from error
    except _DAMAGED as error:
        raise InputError(f"{str(path)!r} is no whole tar archive ({_reason(error)})") from error


def _checked_name(path: Path, name: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{str(path)!r} holds {name!r}, a name that leads out of it: it is no original archive")
    return str(pure)


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _LARGEST:
        raise InputError(f"{str(path)!r} holds {member.name!r} of {member.size:,} bytes: it is no original archive")
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise EOFError(f"{member.name} is cut off")
    return content


def _drain(archive: tarfile.TarFile) -> None:
    """Reads what lies behind the last file: only at its end does gzip compare its checksum."""
    stream = archive.fileobj
    while stream is not None and stream.read(_BLOCK):
        pass


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
