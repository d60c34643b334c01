# SPDX-License-Identifier: Apache-2.0
"""Files: every layout comes back bit for bit, damage is told, and a failed write leaves the old file."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from hotloop.errors import CheckpointError, DTypeError
from hotloop.storage import files
from hotloop.storage.files import load_safetensors, read_safetensors, save_safetensors, write_safetensors

BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
LAYOUTS: dict[str, Any] = {
    "plain": BASE,
    "transposed": BASE.T,
    "fortran": np.asfortranarray(BASE),
    "reversed": BASE[::-1, ::-1],
    "strided": BASE[::2, 1::3],
    "broadcast": np.broadcast_to(BASE[:1], (5, 6)),
    "offset": BASE.reshape(-1)[1:],
    "big_endian": BASE.astype(">f4"),
    "big_endian_transposed": BASE.astype(">f8").T,
    "scalar": np.float32(2.5),
    "zero_dim": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "bool": BASE > 5,
    "read_only": np.frombuffer(BASE.tobytes(), np.float32),
    **{np.dtype(d).name: BASE.astype(d) for d in "bBhHiIqQefd"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back_bit_for_bit(layout: str, tmp_path: Path) -> None:
    given = LAYOUTS[layout]
    write_safetensors(tmp_path / "m", {"x": given})
    tensors, _ = read_safetensors(tmp_path / "m")
    back = tensors["x"]
    assert back.shape == np.shape(given)
    assert back.dtype == np.asarray(given).dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, given)
    assert back.flags.writeable
    assert back.flags.c_contiguous


def test_other_readers_of_the_format_see_the_same(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m", LAYOUTS, {"note": "for all"})
    theirs = safetensors.numpy.load_file(tmp_path / "m")
    assert theirs.keys() == LAYOUTS.keys()
    for name, given in LAYOUTS.items():
        np.testing.assert_array_equal(theirs[name], given)


def test_metadata_and_names_come_back(tmp_path: Path) -> None:
    metadata = {"json": '{"a": [1, "ü"]}', "empty": ""}
    write_safetensors(tmp_path / "m", {"layer.0 ü": BASE, "b": BASE}, metadata)
    tensors, found = read_safetensors(tmp_path / "m")
    assert found == metadata
    assert tensors.keys() == {"layer.0 ü", "b"}


def test_tensors_are_aligned_to_their_elements(tmp_path: Path) -> None:
    tensors = {
        "a": np.ones(3, np.uint8),
        "b": np.ones(3),
        "c": np.ones(1, np.float16),
        "d": np.ones(2, np.float32),
    }
    write_safetensors(tmp_path / "m", tensors)
    data = (tmp_path / "m").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    for name, array in tensors.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"x": BASE, "y": BASE.T}, {"k": "v", "a": "b"})
    write_safetensors(tmp_path / "b", {"y": BASE.T, "x": BASE}, {"a": "b", "k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- damage ---------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_safetensors(path, {"w": np.arange(3, dtype=np.float32)}, {"graph": "text"})
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        if _spaces_only(good, position):
            continue  # the header's padding holds no information
        with pytest.raises(CheckpointError):
            read_safetensors(path)


def _spaces_only(good: bytes, position: int) -> bool:
    (length,) = struct.unpack_from("<Q", good)
    return 8 <= position < 8 + length and not good[position : 8 + length].strip()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_safetensors(path, {"w": np.arange(3, dtype=np.float32)}, {"graph": "text"})
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(path)


def test_damage_names_file_and_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"layer.weight": BASE})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is damaged: tensor 'layer\.weight' has digest"
    ):
        read_safetensors(path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_safetensors(path)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"PK\x03\x04" * 10, b"\xff" * 100, b"\x08\0\0\0\0\0\0\0notjson!"]
)
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_safetensors(tmp_path / "m")


def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FORMAT_VERSION", 99)
    write_safetensors(tmp_path / "m", {"w": BASE})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format version 99; this hotloop reads up to 1: upgrade"):
        read_safetensors(tmp_path / "m")


def test_files_of_others(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": BASE}, tmp_path / "m")
    np.testing.assert_array_equal(load_safetensors(tmp_path / "m")["w"], BASE)
    with pytest.raises(CheckpointError, match=r"not one that hotloop wrote; hl\.load_safetensors"):
        read_safetensors(tmp_path / "m")


def test_system_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        read_safetensors(tmp_path / "absent")
    assert missing.value.filename == str(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        read_safetensors(tmp_path)
    with pytest.raises(IsADirectoryError):
        write_safetensors(tmp_path, {"w": BASE})
    with pytest.raises(FileNotFoundError):
        write_safetensors(tmp_path / "no" / "folder", {"w": BASE})


# --- writing --------------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_permissions_follow_the_umask_and_then_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    old = os.umask(0o027)
    try:
        write_safetensors(path, {"w": BASE})
        assert mode_of(path) == 0o640
        path.chmod(0o604)
        write_safetensors(path, {"w": BASE})
        assert mode_of(path) == 0o604
    finally:
        os.umask(old)


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_safetensors(tmp_path / "link", {"w": BASE})
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(read_safetensors(tmp_path / "real")[0]["w"], BASE)


def fail(error: OSError) -> Callable[..., None]:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    return failing


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    write_safetensors(path, {"w": BASE})
    good = path.read_bytes()
    error = OSError(number, os.strerror(number))
    if where == "write":
        monkeypatch.setattr(files, "_write", fail(error))
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", fail(error))
    else:
        monkeypatch.setattr(Path, "replace", fail(error))
    with pytest.raises(OSError) as caught:
        write_safetensors(path, {"w": BASE + 1})
    monkeypatch.undo()
    assert caught.value.errno == number
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["m"]  # noqa: PTH208


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    kind = {True: "sync folder", False: "sync file"}
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(kind[stat.S_ISDIR(os.fstat(fd).st_mode)]), fsync(fd))[1]
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1])
    write_safetensors(tmp_path / "m", {"w": BASE})
    assert calls == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "match"),
    [
        ({"w": np.array(["a"])}, {}, DTypeError, "'w' has dtype <U1"),
        ({"w": np.array([None])}, {}, DTypeError, "object"),
        ({"w": np.ones(1, complex)}, {}, DTypeError, "complex"),
        ({"": BASE}, {}, ValueError, "non-empty"),
        ({3: BASE}, {}, ValueError, "name"),
        ({"__metadata__": BASE}, {}, ValueError, "name"),
        ({"w": BASE}, {"digests": "x"}, ValueError, "reserved"),
        ({"w": BASE}, {"a": 3}, TypeError, "text to text"),
    ],
)
def test_bad_content_is_refused_before_writing(
    tensors: Any, metadata: Any, error: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        write_safetensors(tmp_path / "m", tensors, metadata)
    assert not any(tmp_path.iterdir())


def test_plain_dicts(tmp_path: Path) -> None:
    save_safetensors({"w": BASE.T}, tmp_path / "m", metadata={"note": "x"})
    np.testing.assert_array_equal(load_safetensors(tmp_path / "m")["w"], BASE.T)
    with pytest.raises(TypeError, match=r"the order is save_safetensors\(tensors, path\)"):
        save_safetensors(str(tmp_path / "m"), {"w": BASE})  # type: ignore[arg-type]
