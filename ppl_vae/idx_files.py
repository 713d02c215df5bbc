"""IDX files, the format of MNIST: read, checked by content, fetched when asked.

A file is trusted by the SHA-256 of its uncompressed content, so that it may lie there plain or
compressed by anybody, and may come from any mirror.
"""

import gzip
import hashlib
import os
import shutil
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

__all__ = ["IMAGES", "LABELS", "Source", "read_idx", "read_part"]

IMAGES = "images-idx3-ubyte"
LABELS = "labels-idx1-ubyte"
_UNSIGNED_BYTE = 0x08
_TIMEOUT = 30  # seconds without an answer from a mirror


class Source(NamedTuple):
    """Where the IDX files of a data set lie, and what they must hold."""

    name: str
    folders: tuple[str, ...]  # under the data folder, tried in this order; the first gets downloads
    mirrors: tuple[str, ...]  # addresses to which "<file name>.gz" is appended
    num_rows: dict[str, int]  # "train" and "t10k"
    sha256: dict[str, str]  # file name -> digest of the uncompressed content


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return the array of bytes in an IDX file, plain or gzip (told by the name's end, .gz).

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not IDX of unsigned bytes, truncated or corrupt; names the file.

    Example:
        >>> labels = read_idx("train-labels-idx1-ubyte.gz")  # doctest: +SKIP
    """
    return _parse(_content(Path(path)), Path(path)).copy()  # bytes cannot be written to


def read_part(
    source: Source, folder: Path, part: str, kind: str, *, download: bool
) -> NDArray[np.uint8]:
    """Return one file of a data set: images (rows, height, width) or labels (rows,).

    Args:
        source: the data set.
        folder: the data folder, above those of `source.folders`.
        part: "train" or "t10k".
        kind: IMAGES or LABELS.
        download: fetch the file when it is absent.

    Raises:
        FileNotFoundError: the file is absent and `download` is False.
        ConnectionError: no mirror could be read.
        ValueError: the file is truncated, corrupt or of another data set.

    Example:
        >>> x = read_part(source, Path("data"), "train", IMAGES, download=False)  # doctest: +SKIP
    """
    name = f"{part}-{kind}"
    places = [folder / sub / (name + end) for sub in source.folders for end in ("", ".gz")]
    path = next((place for place in places if place.is_file()), None)
    if path is None and not download:
        looked = ", ".join(str(folder / sub) for sub in source.folders)
        raise FileNotFoundError(
            f"{source.name}: no {name} or {name}.gz in {looked}. Either name the folder that has "
            "it, with data_dir= or the environment variable PPL_VAE_DATA, or fetch the public "
            "original with download=True."
        )
    if path is None:
        path = folder / source.folders[0] / f"{name}.gz"
        _fetch(source, name, path)
    content = _content(path)
    array = _parse(content, path)
    _check_rows(source, part, array, path)
    _check_digest(source, name, content, path)
    return array


def _content(path: Path) -> bytes:
    """Return the uncompressed bytes of a file."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole gzip file ({error}): truncated or corrupt. "
            "Delete it and fetch it again."
        ) from error


def _parse(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the array behind an IDX header: 0, 0, type, dimensions, then each size in 4 bytes."""
    num_dims = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * num_dims
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or num_dims == 0 or len(content) < start:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes: expected a header that begins "
            f"00 00 08 and holds the sizes, got {content[:4].hex(' ') or 'nothing'}."
        )
    shape = tuple(np.frombuffer(content, dtype=">u4", count=num_dims, offset=4).tolist())
    expected, got = int(np.prod(shape, dtype=object)), len(content) - start
    if got != expected:
        state = "truncated" if got < expected else "corrupt"
        raise ValueError(
            f"{path} is {state}: its header promises {shape}, {expected} bytes, but {got} follow. "
            "Delete it and fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _check_rows(source: Source, part: str, array: NDArray[np.uint8], path: Path) -> None:
    is_images = IMAGES in path.name
    expected = (source.num_rows[part], 28, 28) if is_images else (source.num_rows[part],)
    if array.shape != expected:
        raise ValueError(
            f"{path} holds an array of shape {array.shape}; {source.name} has {expected} there. "
            "Name the folder of the original with data_dir=."
        )
    if not is_images and array.max() > 9:
        row = int(array.argmax())
        raise ValueError(
            f"{path} has label {array[row]} at row {row}; labels of {source.name} run from 0 to 9. "
            "Delete the file and fetch it again."
        )


def _check_digest(source: Source, name: str, content: bytes, path: Path) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256[name]:
        raise ValueError(
            f"{path} is not the {name} of {source.name}: the SHA-256 of its uncompressed content "
            f"is {digest}, expected {source.sha256[name]}. If it belongs to another data set, name "
            "another folder with data_dir=; if it is corrupt, delete it and fetch it again."
        )


def _fetch(source: Source, name: str, path: Path) -> None:
    """Download a file from the first mirror whose copy is genuine; nothing half-written stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part.gz")
    failures = []
    for mirror in source.mirrors:
        try:
            _copy(f"{mirror}{name}.gz", partial)
            _check_digest(source, name, _content(partial), partial)
            os.replace(partial, path)
            return
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{mirror}{name}.gz: {error}")
        finally:
            partial.unlink(missing_ok=True)
    raise ConnectionError(
        f"{source.name}: {name} could not be fetched. Put the file into {path.parent} by hand, or "
        "name the folder that has it with data_dir=.\n" + "\n".join(failures)
    )


def _copy(url: str, target: Path) -> None:
    with urlopen(url, timeout=_TIMEOUT) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0) or None
        with tqdm.wrapattr(response, "read", total=size, desc=target.name.split(".")[0]) as body:
            shutil.copyfileobj(body, file)
