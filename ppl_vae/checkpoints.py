"""Checkpoints of a training run: named arrays in one file, written whole or not at all."""

import os
import tempfile
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

__all__ = ["read_checkpoint", "write_checkpoint"]

_DAMAGED = (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error)


def write_checkpoint(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to `path` (.npz), replacing an older file only when complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        try:
            np.savez(part, **arrays)  # type: ignore[arg-type]
        except BaseException:
            os.unlink(part.name)
            raise
    os.replace(part.name, path)


def read_checkpoint(
    path: str | os.PathLike[str], expected: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint that has those of `expected`, in the same shapes.

    Raises:
        ValueError: if the file is damaged, or belongs to another program or data set.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is no checkpoint that can be read ({error}); remove it to start afresh."
        ) from error
    for name, array in expected.items():
        if name not in arrays or arrays[name].shape != array.shape:
            came = arrays[name].shape if name in arrays else "nothing"
            raise ValueError(
                f"Checkpoint {path} belongs to another run: {name} should have shape "
                f"{array.shape}, it has {came}. Remove it, or give another path."
            )
    return arrays
