"""One weight file for both twins: arrays under common names, and a JSON header.

The file is safetensors. Names and orientation are torch's (`encoder.layers.0.weight` of shape
(out, in), convolutions (out, in, height, width)); the NumPyro twin turns its arrays when it
writes and reads. Nothing here imports a backend, and nothing in a file can run code.
"""

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

__all__ = ["FORMAT_VERSION", "check_weights", "read_weights", "write_weights"]

FORMAT_VERSION = 1
_ENTRY = "ppl_vae"
_LIBRARIES = {  # module that was imported: distribution that has a version
    "ppl_vae": "ppl-vae",
    "numpy": "numpy",
    "torch": "torch",
    "pyro": "pyro-ppl",
    "jax": "jax",
    "flax": "flax",
    "numpyro": "numpyro",
}


def write_weights(
    path: str | os.PathLike[str], weights: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write named arrays and a header to a safetensors file, whole or not at all.

    Arguments:
        path: file to write; an older file of that name is replaced at the end, in one move.
        weights: arrays by name; their dtype is kept.
        header: what JSON can hold, such as `{"architecture": ...}`. The format version and the
            versions of the libraries in use are added under `format` and `versions`.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: a value in the header that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_weights(path, {"scale": np.ones(3)}, {"note": "mine"})
        >>> weights, header = read_weights(path)
        >>> weights["scale"].dtype, header["note"]
        (dtype('float64'), 'mine')
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it, then save.")
    full = {**header, "format": FORMAT_VERSION, "versions": _versions()}
    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    content = save(arrays, {_ENTRY: json.dumps(full)})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_weights(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_weights` wrote: `(weights, header)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, is not a safetensors file, was not written by
            ppl_vae, or was written in a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; check the path.")
    _check_begin(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = _parse_header(path, file.metadata())
            return {name: file.get_tensor(name) for name in file.keys()}, header
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}); copy or save it again."
        ) from error


def check_weights(weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a `ValueError` that names the tensors which do not fit the expected shapes."""
    lines = [f"{name}: missing" for name in shapes if name not in weights]
    lines += [f"{name}: not expected" for name in weights if name not in shapes]
    lines += [
        f"{name}: expected shape {tuple(shapes[name])}, came {np.shape(array)}"
        for name, array in weights.items()
        if name in shapes and np.shape(array) != tuple(shapes[name])
    ]
    if lines:
        raise ValueError(
            f"The weights do not fit this VAE ({'; '.join(lines)}). "
            "Build the VAE with the arguments that the weights were trained with."
        )


def _check_begin(path: Path) -> None:
    """Tell a short file from a foreign one: safetensors begins with a length and then `{`."""
    with open(path, "rb") as file:
        begin = file.read(9)
    size = path.stat().st_size
    if begin[8:] not in (b"", b"{"):
        raise ValueError(f"{path} is not a safetensors file; give one that ppl_vae saved.")
    if size < 9 or size < 8 + int.from_bytes(begin[:8], "little"):
        raise ValueError(f"{path} is truncated ({size} bytes); copy or save it again.")


def _parse_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {})[_ENTRY])
        written = int(header["format"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is a safetensors file without the header of ppl_vae; "
            "give one that ppl_vae saved."
        ) from None
    if written > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {written}, this ppl_vae reads up to {FORMAT_VERSION}; "
            "upgrade ppl_vae."
        )
    return header


def _versions() -> dict[str, str]:
    """Versions of the libraries that this process has imported."""
    found = {}
    for module, distribution in _LIBRARIES.items():
        if module in sys.modules:
            try:
                found[distribution] = version(distribution)
            except PackageNotFoundError:  # a checkout on the path that is not installed
                found[distribution] = "unknown"
    return found
