"""Checkpoints of a training run: named arrays in one file, written whole or not at all.

A checkpoint also says in words what run it belongs to, so that no other run goes on from it.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

__all__ = ["read_checkpoint", "write_checkpoint"]

_DAMAGED = (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error)
_SETTINGS = "settings"
_LONGEST = 120  # letters of a setting in a message


def write_checkpoint(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    settings: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to `path` (.npz), replacing an older file only when complete.

    Args:
        path: file to write; its folder is made.
        arrays: by name; "settings" is taken.
        settings: what the run was told, in words (`run_settings.describe`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**arrays, _SETTINGS: np.asarray(json.dumps(dict(settings or {})))}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **content)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(
    path: str | os.PathLike[str],
    expected: Mapping[str, np.ndarray],
    settings: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint that has those of `expected`, in the same shapes.

    Args:
        path: file that `write_checkpoint` wrote.
        expected: arrays of the shapes that must be there.
        settings: what this run is told; the checkpoint's must say the same.

    Raises:
        ValueError: if the file is damaged, or belongs to another run: other settings, another
            program or another data set; says which setting is another one.
    """
    if Path(path).is_dir():
        raise ValueError(f"A checkpoint is a file, {path} is a folder: add the file's name.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        written = json.loads(str(arrays.pop(_SETTINGS, "{}")))
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is no checkpoint that can be read ({error}); remove it to start afresh."
        ) from error
    _require_same_settings(path, written, settings or {})
    for name, array in expected.items():
        if name not in arrays or arrays[name].shape != array.shape:
            came = arrays[name].shape if name in arrays else "nothing"
            raise _another_run(path, f"{name} should have shape {array.shape}, it has {came}")
    return arrays


def _require_same_settings(
    path: str | os.PathLike[str], written: Mapping[str, str], settings: Mapping[str, str]
) -> None:
    told = {name: written.get(name, "not known") for name in settings}
    changes = [
        f"{name} was {_around(old, settings[name])} and is {_around(settings[name], old)}"
        for name, old in told.items()
        if old != settings[name]
    ]
    if changes:
        raise _another_run(path, "; ".join(changes))


def _around(words: str, other: str) -> str:
    """The part of long words in which they differ from others."""
    if len(words) <= _LONGEST:
        return words
    pairs = enumerate(zip(words, other, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(words), len(other)))
    begin, end = max(first - _LONGEST // 2, 0), first + _LONGEST // 2
    return f"{'...' * (begin > 0)}{words[begin:end]}{'...' * (end < len(words))}"


def _another_run(path: str | os.PathLike[str], difference: str) -> ValueError:
    return ValueError(
        f"Checkpoint {path} belongs to another run: {difference}. Remove it, or give another path."
    )
