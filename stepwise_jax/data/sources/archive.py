"""Reads the files of a tar archive one by one. No file is ever written under a name from the archive."""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from stepwise_jax.errors import InputError

# More than the largest file of any supported archive: CIFAR-100's 153.7 MB of training images.
_MAX_FILE_BYTES = 256 << 20

_BLOCK = 1 << 20

_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def files(path: Path, select: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield the names (without a leading "./") and contents of regular files, in the archive's order.

    Links, devices and pipes are skipped, never followed.

    Args:
      path: the archive.
      select: whether to read the file of a given name.

    Raises:
      InputError: if the archive cannot be read to its end, holds a name that points outside it, or a file that is
        far too large.
    """
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = _checked_name(path, member.name)
                if member.isreg() and select(name):
                    yield name, _content(path, archive, member)
            _drain(archive)
    except InputError:
        raise
    except OSError as error:
        message = f"cannot be read: {error.strerror}" if error.strerror else f"is not a complete tar archive ({error})"
        raise InputError(f"{str(path)!r} {message}") from error
    except _DAMAGED as error:
        raise InputError(f"{str(path)!r} is not a complete tar archive ({_reason(error)})") from error


def _checked_name(path: Path, name: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{str(path)!r} holds {name!r}, a name that points outside it: it is not the original archive")
    return str(pure)


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_FILE_BYTES:
        raise InputError(
            f"{str(path)!r} holds {member.name!r} of {member.size:,} bytes: it is not the original archive"
        )
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise EOFError(f"{member.name} is truncated")
    return content


def _drain(archive: tarfile.TarFile) -> None:
    """Read on to the end of the stream, where gzip compares its checksum."""
    stream = archive.fileobj
    while stream is not None and stream.read(_BLOCK):
        pass


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
