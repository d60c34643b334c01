# SPDX-License-Identifier: Apache-2.0
"""Files: safetensors containers that survive crashes and tell when they are damaged.

A model file is a plain safetensors file that any reader of the format opens. We lay out the bytes ourselves
(the library writes wrong ones for arrays that are not C-contiguous, and never syncs) and let the library's
checked parser read them. Each tensor, and the metadata, has a BLAKE2b digest that loading verifies; a file
is replaced in one step, after its bytes have reached the disk. Nothing is ever pickled.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Union, cast

import numpy as np
import safetensors

from hotloop.errors import CheckpointError, DTypeError

Path = Union[str, "os.PathLike[str]"]
Tensors = dict[str, "np.ndarray[Any, Any]"]

#: The container's version. Files with a higher one are refused, lower ones are still read.
FORMAT_VERSION = 1

_FORMAT = "hotloop"
_KEY_FORMAT, _KEY_VERSION, _KEY_DIGESTS = "format", "format_version", "digests"
_RESERVED = (_KEY_FORMAT, _KEY_VERSION, _KEY_DIGESTS)
_METADATA_DIGEST = "__metadata__"  # never a tensor's name in this format
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_CODES = {np.dtype(text): code for code, text in _DTYPES.items()}
_counter = itertools.count()


def write_safetensors(
    path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (any shape, layout and byte order; bool, integer or float) and text to ``path``.

    The file appears whole or not at all: an older one stays until the new bytes are on the disk, and
    keeps its permissions. Raises `DTypeError` for other dtypes, `ValueError` for bad names, and `OSError`
    (disk full, no permission, ...) with ``path`` untouched.

    >>> write_safetensors("m.safetensors", {"w": np.zeros((2, 3), np.float32)}, {"note": "zeros"})
    """
    arrays = {
        _checked_name(name): _dense(name, value) for name, value in cast(Mapping[Any, Any], tensors).items()
    }
    text = {**_checked_metadata(metadata or {}), _KEY_FORMAT: _FORMAT, _KEY_VERSION: str(FORMAT_VERSION)}
    digests = {name: digest(array) for name, array in arrays.items()}
    digests[_METADATA_DIGEST] = _digest_text(text)
    text[_KEY_DIGESTS] = json.dumps(digests, sort_keys=True, separators=(",", ":"))
    with replacing(path) as file:
        _write(file, arrays, text)


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors (own, writable, little-endian) and the metadata of a file that hotloop wrote.

    Raises `CheckpointError` for a file that is not hotloop's, is damaged, or comes from a newer version,
    and `OSError` if it cannot be read.

    >>> tensors, metadata = read_safetensors("m.safetensors")
    """
    tensors, metadata = _read(path)
    if metadata.get(_KEY_FORMAT) != _FORMAT:
        raise CheckpointError(
            f"[files] {os.fspath(path)} is a safetensors file, but not one that hotloop wrote; "
            "hl.load_safetensors reads its tensors"
        )
    _verify(path, tensors, metadata)
    return tensors, {key: value for key, value in metadata.items() if key not in _RESERVED}


def save_safetensors(
    tensors: Mapping[str, Any], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Save a plain dict of arrays, such as ``model.state_dict()``; see `write_safetensors`.

    >>> save_safetensors({"w": np.eye(2)}, "eye.safetensors")
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"[save_safetensors] tensors must be a dict of name to array, got {type(tensors).__name__}; "
            "the order is save_safetensors(tensors, path)"
        )
    write_safetensors(path, tensors, metadata)


def load_safetensors(path: Path) -> Tensors:
    """The tensors of any safetensors file; digests are verified where hotloop wrote it.

    Raises as `read_safetensors`, except that files of other writers are welcome.

    >>> load_safetensors("eye.safetensors")["w"].shape
    (2, 2)
    """
    tensors, metadata = _read(path)
    if metadata.get(_KEY_FORMAT) == _FORMAT:
        _verify(path, tensors, metadata)
    return tensors


# --- writing --------------------------------------------------------------------------------------


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name or name == "__metadata__":
        raise ValueError(f"[write_safetensors] a tensor's name must be a non-empty text, got {name!r}")
    return name


def _checked_metadata(metadata: Mapping[Any, Any]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"[write_safetensors] metadata must map text to text, got {key!r}: {value!r:.80}")
        if key in _RESERVED:
            raise ValueError(f"[write_safetensors] metadata key {key!r} is reserved; choose another")
    return dict(metadata)


def _dense(name: str, value: Any) -> np.ndarray[Any, Any]:
    """A C-contiguous little-endian array; the caller's own memory where it is that already."""
    array = np.asarray(value)
    if array.dtype.newbyteorder("<") not in _CODES:
        raise DTypeError(
            f"[write_safetensors] {name!r} has dtype {array.dtype}; allowed: bool, integers, float16/32/64"
        )
    # ascontiguousarray turns a 0-d array into one of shape (1,)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)


def _write(file: BinaryIO, arrays: Tensors, metadata: dict[str, str]) -> None:
    # Wide elements first, so that every tensor is aligned to its own element size.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in order:
        array = arrays[name]
        end = offset + array.nbytes
        header[name] = {"dtype": _CODES[array.dtype], "shape": array.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        file.write(arrays[name].reshape(-1).view(np.uint8).data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and leaves no trace otherwise."""
    target = pathlib.Path(path).resolve()  # through a link: its target is replaced, the link stays
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a file cannot take the place of a folder", str(target))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{next(_counter)}.tmp")
    # 0666 minus the umask, which the kernel subtracts: unlike mkstemp's 0600, others may read the model.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(FileNotFoundError):
                temporary.chmod(target.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:  # as of write and fsync
            error.filename = os.fspath(path)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """Make the rename durable; systems that cannot open a folder (Windows) have nothing to sync."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading --------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    data = pathlib.Path(path).read_bytes()
    try:
        entries = cast(Any, safetensors).deserialize(
            data
        )  # checks header, dtypes, shapes, overlaps and length
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (safetensors.SafetensorError, struct.error, ValueError) as error:
        raise CheckpointError(
            f"[files] {os.fspath(path)} is damaged or not a safetensors file ({error})"
        ) from None
    tensors: Tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(
                f"[files] {os.fspath(path)}: {name!r} has dtype {entry['dtype']}; "
                f"allowed: {', '.join(_DTYPES)}"
            )
        flat = np.frombuffer(entry["data"], dtype=_DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors, metadata


def _verify(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    where = f"[files] {os.fspath(path)}"
    try:
        version = int(metadata[_KEY_VERSION])
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format version {version}; this hotloop reads up to {FORMAT_VERSION}: upgrade it"
            )
        digests = dict(json.loads(metadata[_KEY_DIGESTS]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{where} is damaged: its version or digests cannot be read") from None
    found = {name: digest(array) for name, array in tensors.items()}
    found[_METADATA_DIGEST] = _digest_text({k: v for k, v in metadata.items() if k != _KEY_DIGESTS})
    for name in sorted(found.keys() | digests.keys()):
        if found.get(name) != digests.get(name):
            what = "its metadata" if name == _METADATA_DIGEST else f"tensor {name!r}"
            raise CheckpointError(
                f"{where} is damaged: {what} has digest {found.get(name)}, expected {digests.get(name)}; "
                "restore the file from a copy"
            )


# --- digests --------------------------------------------------------------------------------------


def digest(array: np.ndarray[Any, Any], pieces: Iterable[np.ndarray[Any, Any]] | None = None) -> str:
    """BLAKE2b of dtype, shape and bytes of an array that is dense and little-endian, as hexadecimal text.
    ``pieces`` are its rows, where they are not in memory at once."""
    hasher = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    for piece in (array,) if pieces is None else pieces:
        hasher.update(piece.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def _digest_text(metadata: Mapping[str, str]) -> str:
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
