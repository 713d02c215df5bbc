"""Data sets for examples and tests: digits (embedded), MNIST and Fashion-MNIST, CSV tables.

Images come as float32 grey values in [0, 1], or binarised to 0 and 1. Nothing is fetched from the
network unless `download=True` says so.
"""

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.idx_files import IMAGES, LABELS, Source, read_idx, read_part
from ppl_vae.tables import Table, csv_table

__all__ = [
    "DataSplit",
    "Table",
    "binarise",
    "binarise_stochastic",
    "csv_table",
    "digits",
    "fashion_mnist",
    "mnist",
    "read_idx",
]


class DataSplit(NamedTuple):
    """Images and labels for training and testing, float32 and int64.

    Shapes: images (rows, features), or (rows, 1, height, width) when not flattened; labels (rows,).
    """

    x_train: NDArray[np.float32]
    x_test: NDArray[np.float32]
    y_train: NDArray[np.int64]
    y_test: NDArray[np.int64]


_MNIST = Source(
    name="MNIST",
    folders=("mnist", "MNIST/raw", "."),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    num_rows={"train": 60_000, "t10k": 10_000},
    sha256={
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
)
_FASHION_MNIST = Source(
    name="Fashion-MNIST",
    folders=("fashion-mnist", "FashionMNIST/raw", "."),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    num_rows={"train": 60_000, "t10k": 10_000},
    sha256={
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
)


def digits(
    *, binary: bool = False, flatten: bool = True, test_size: int | float = 0.2, seed: int = 0
) -> DataSplit:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, split at random.

    Args:
        binary: True for 0 and 1 (grey value 0.5 and above is 1), False for grey in [0, 1].
        flatten: True for (rows, 64), False for (rows, 1, 8, 8).
        test_size: test rows, as a number or as a fraction of all.
        seed: of the split.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: `test_size` leaves no row for training or for testing.

    Example:
        >>> digits(test_size=97).x_train.shape
        (1700, 64)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits() needs scikit-learn, which holds them: pip install 'ppl-vae[examples]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    num_test = _num_test(test_size, len(images))
    x = _images(images.reshape(-1, 8, 8), 16, binary, flatten)
    test, train = np.split(np.random.default_rng(seed).permutation(len(x)), [num_test])
    return DataSplit(x[train], x[test], labels[train], labels[test])


def mnist(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    binary: bool = False,
    flatten: bool = True,
) -> DataSplit:
    """Return MNIST, 60,000 training and 10,000 test digits of 28 x 28 pixels, in original order.

    Reads the four IDX files, plain or gzip, from `data_dir` or its folders `mnist` or `MNIST/raw`,
    and checks their content. LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.

    Args:
        data_dir: folder; None means the environment variable PPL_VAE_DATA, else ~/.cache/ppl_vae.
        download: fetch what is absent into `data_dir`, 11 MB in all.
        binary: True for 0 and 1 (grey value 0.5 and above is 1), False for grey in [0, 1].
        flatten: True for (rows, 784), False for (rows, 1, 28, 28).

    Raises:
        FileNotFoundError: a file is absent and `download` is False.
        ConnectionError: no mirror could be read.
        ValueError: a file is truncated, corrupt or of another data set.

    Example:
        >>> x_train, x_test, y_train, y_test = mnist("~/data", binary=True)  # doctest: +SKIP
    """
    return _load(_MNIST, data_dir, download, binary, flatten)


def fashion_mnist(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    binary: bool = False,
    flatten: bool = True,
) -> DataSplit:
    """Return Fashion-MNIST, 60,000 training and 10,000 test images of clothes, 28 x 28 pixels.

    As `mnist` in all but the folders, `fashion-mnist` or `FashionMNIST/raw`, and the size of the
    download, 31 MB. Xiao, Rasul and Vollgraf (2017), https://arxiv.org/abs/1708.07747.

    Args:
        data_dir: folder; None means the environment variable PPL_VAE_DATA, else ~/.cache/ppl_vae.
        download: fetch what is absent into `data_dir`.
        binary: True for 0 and 1 (grey value 0.5 and above is 1), False for grey in [0, 1].
        flatten: True for (rows, 784), False for (rows, 1, 28, 28).

    Raises:
        FileNotFoundError: a file is absent and `download` is False.
        ConnectionError: no mirror could be read.
        ValueError: a file is truncated, corrupt or of another data set.

    Example:
        >>> clothes = fashion_mnist(download=True, flatten=False)  # doctest: +SKIP
    """
    return _load(_FASHION_MNIST, data_dir, download, binary, flatten)


def binarise(x: ArrayLike, threshold: float = 0.5) -> NDArray[np.float32]:
    """Return 1 where the grey value reaches the threshold and 0 elsewhere.

    Args:
        x: grey values in [0, 1], any shape.
        threshold: in [0, 1].

    Raises:
        ValueError: a value outside [0, 1], NaN included.

    Example:
        >>> binarise([0.2, 0.5])
        array([0., 1.], dtype=float32)
    """
    return (_checked_grey(x) >= threshold).astype(np.float32)


def binarise_stochastic(rng: np.random.Generator, x: ArrayLike) -> NDArray[np.float32]:
    """Draw each pixel from a Bernoulli law whose probability is its grey value.

    Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks.

    Args:
        rng: source of randomness.
        x: grey values in [0, 1], any shape.

    Raises:
        ValueError: a value outside [0, 1], NaN included.

    Example:
        >>> binarise_stochastic(np.random.default_rng(0), [0.0, 1.0])
        array([0., 1.], dtype=float32)
    """
    grey = _checked_grey(x)
    return (rng.random(grey.shape) < grey).astype(np.float32)


def _load(
    source: Source,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    binary: bool,
    flatten: bool,
) -> DataSplit:
    folder = _data_dir(data_dir)
    parts = ("train", "t10k")
    images = [read_part(source, folder, part, IMAGES, download=download) for part in parts]
    labels = [read_part(source, folder, part, LABELS, download=download) for part in parts]
    x_train, x_test = (_images(x, 255, binary, flatten) for x in images)
    y_train, y_test = (y.astype(np.int64) for y in labels)
    return DataSplit(x_train, x_test, y_train, y_test)


def _data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    chosen = data_dir or os.environ.get("PPL_VAE_DATA") or "~/.cache/ppl_vae"
    return Path(chosen).expanduser()


def _images(
    levels: NDArray[np.generic], white: int, binary: bool, flatten: bool
) -> NDArray[np.float32]:
    """Scale levels 0..white, (rows, height, width), to grey or binary images."""
    grey = levels.astype(np.float32) / np.float32(white)
    x = binarise(grey) if binary else grey
    return x.reshape(len(x), -1) if flatten else x[:, None]


def _num_test(test_size: Any, num_rows: int) -> int:
    num_test = 0
    if isinstance(test_size, Integral):
        num_test = int(test_size)
    elif isinstance(test_size, Real) and 0 < (share := float(test_size)) < 1:
        num_test = round(share * num_rows)
    if not 0 < num_test < num_rows:
        raise ValueError(
            f"test_size must leave rows on both sides: a fraction inside (0, 1) or an integer from "
            f"1 to {num_rows - 1}, got {test_size!r}."
        )
    return num_test


def _checked_grey(x: ArrayLike) -> NDArray[np.floating]:
    grey = np.asarray(x, dtype=np.result_type(np.asarray(x).dtype, np.float32))
    bad = np.argwhere(~((grey >= 0) & (grey <= 1)))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"grey values must lie in [0, 1], got {grey[index]} at index {index}. Divide by the "
            "white level first (255 for bytes), and binarise before entries are set to NaN."
        )
    return grey
