"""Data sets: digits, the IDX files of MNIST and Fashion-MNIST, CSV tables."""

import gzip
import hashlib
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppl_vae import datasets
from ppl_vae.datasets import digits, mnist, read_idx

needs_data = pytest.mark.skipif(
    "PPL_VAE_DATA" not in os.environ,
    reason="set PPL_VAE_DATA to a folder with MNIST and Fashion-MNIST in IDX files",
)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Let `mnist` expect five images; return the content of the four files."""
    rng = np.random.default_rng(0)
    content = {}
    for part, num_rows in {"train": 3, "t10k": 2}.items():
        images = rng.integers(0, 256, (num_rows, 28, 28))
        content[f"{part}-images-idx3-ubyte"] = idx(images)
        content[f"{part}-labels-idx1-ubyte"] = idx(np.arange(num_rows) + 7)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    source = datasets._MNIST._replace(
        num_rows={"train": 3, "t10k": 2}, sha256=digests, mirrors=(f"file://{tmp_path}/nowhere/",)
    )
    monkeypatch.setattr(datasets, "_MNIST", source)
    monkeypatch.delenv("PPL_VAE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return content


def write(folder: Path, content: dict[str, bytes], *, compress: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        path = folder / (name + ".gz" if compress else name)
        path.write_bytes(gzip.compress(data) if compress else data)
    return folder


def test_digits_are_grey_float32_and_split_without_overlap() -> None:
    split = digits(test_size=360, seed=1)
    assert [array.shape for array in split] == [(1437, 64), (360, 64), (1437,), (360,)]
    assert split.x_train.dtype == np.float32
    assert split.y_train.dtype == np.int64
    assert (split.x_train.min(), split.x_train.max()) == (0, 1)
    original = pytest.importorskip("sklearn.datasets").load_digits()
    pairs = {(*row, label) for row, label in zip(original.data / 16, original.target, strict=True)}
    ours = {
        (*row, label)
        for x, y in [(split.x_train, split.y_train), (split.x_test, split.y_test)]
        for row, label in zip(x.tolist(), y.tolist(), strict=True)
    }
    assert ours == pairs


def test_digits_binary_image_and_seed() -> None:
    grey, binary = digits(flatten=False), digits(flatten=False, binary=True)
    assert grey.x_train.shape[1:] == (1, 8, 8)
    np.testing.assert_array_equal(binary.x_test, grey.x_test >= 0.5)
    np.testing.assert_array_equal(digits().x_test, grey.x_test.reshape(-1, 64))
    assert not np.array_equal(digits(seed=1).x_test, digits(seed=2).x_test)


@pytest.mark.parametrize(
    ("test_size", "num_test"),
    [(np.float32(0.2), 359), (np.int64(97), 97), (Fraction(1, 3), 599), (np.uint8(255), 255)],
)
def test_digits_take_any_kind_of_number(test_size: Any, num_test: int) -> None:
    assert len(digits(test_size=test_size).x_test) == num_test


@pytest.mark.parametrize("test_size", [0, 1797, 0.0, 1.0, -3, 2.5, np.nan, "0.2", None])
def test_digits_refuse_an_empty_side(test_size: Any) -> None:
    with pytest.raises(ValueError, match=f"1 to 1796, got {test_size!r}"):
        digits(test_size=test_size)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl-vae\[examples\]'"):
        digits()


def test_stochastic_binarisation_has_the_grey_value_as_its_mean() -> None:
    grey = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    draws = datasets.binarise_stochastic(np.random.default_rng(0), np.tile(grey, (20_000, 1)))
    assert set(np.unique(draws)) == {0, 1}
    # 5 standard deviations of a mean of 20,000: false alarm below 1e-5; exact at 0 and 1.
    error = 5 * np.sqrt(grey * (1 - grey) / 20_000)
    assert (np.abs(draws.mean(axis=0, dtype=float) - grey) <= error).all()


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_binarisation_refuses_values_that_are_no_grey(value: float) -> None:
    with pytest.raises(ValueError, match=rf"got {value} at index \(0, 1\)"):
        datasets.binarise([[0.0, value]])
    with pytest.raises(ValueError, match="white level"):
        datasets.binarise_stochastic(np.random.default_rng(0), [[0.0, value]])


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("sub", ["mnist", "MNIST/raw", "."])
def test_mnist_is_found_in_each_layout(
    tiny: dict[str, bytes], tmp_path: Path, sub: str, compress: bool
) -> None:
    write(tmp_path / sub, tiny, compress=compress)
    split = mnist(tmp_path)
    assert [array.shape for array in split] == [(3, 784), (2, 784), (3,), (2,)]
    pixels = np.frombuffer(tiny["t10k-images-idx3-ubyte"], np.uint8, offset=16)
    np.testing.assert_array_equal(np.rint(split.x_test.ravel() * 255), pixels)
    np.testing.assert_array_equal(split.y_train, [7, 8, 9])
    assert split.x_train.dtype == np.float32
    assert mnist(tmp_path, flatten=False).x_train.shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(mnist(tmp_path, binary=True).x_test, split.x_test >= 0.5)


def test_mnist_reads_the_environment_variable(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mnist", tiny)
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    assert mnist().x_train.shape == (3, 784)


def test_absent_mnist_says_both_ways(tiny: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)data_dir=.*PPL_VAE_DATA.*download=True"):
        mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"home/.cache/ppl_vae"):
        mnist()


def cut(data: bytes) -> bytes:
    return data[:-5]


def test_truncated_gzip_is_named(tiny: dict[str, bytes], tmp_path: Path) -> None:
    path = write(tmp_path / "mnist", tiny) / "train-images-idx3-ubyte.gz"
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is not a whole gzip"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "is truncated: its header promises"),
        (lambda data: data + b"more", "is corrupt: its header promises"),
        (lambda data: data[:-1] + bytes([9 - data[-1]]), "SHA-256"),
        (lambda data: data[:-1] + bytes([10]), "has label 10 at row 2"),
        (lambda _: idx(np.arange(4)), r"shape \(4,\); MNIST has \(3,\)"),
        (lambda data: b"\1" + data[1:], "not an IDX file of unsigned bytes.*got 01 00 08 01"),
        (lambda data: data[:6], "not an IDX file"),
        (lambda _: b"", "got nothing"),
    ],
)
def test_wrong_content_is_named(
    tiny: dict[str, bytes], tmp_path: Path, spoil: Callable[[bytes], bytes], words: str
) -> None:
    name = "train-labels-idx1-ubyte"
    write(tmp_path / "mnist", tiny | {name: spoil(tiny[name])})
    with pytest.raises(ValueError, match=rf"{name}.gz .*{words}"):
        mnist(tmp_path)


def test_download_takes_the_first_genuine_mirror(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = write(tmp_path / "false", {name: idx(np.zeros((3, 28, 28))) for name in tiny})
    good = write(tmp_path / "good", tiny)
    mirrors = tuple(f"{folder.as_uri()}/" for folder in (tmp_path / "gone", false, good))
    monkeypatch.setattr(datasets, "_MNIST", datasets._MNIST._replace(mirrors=mirrors))
    target = tmp_path / "new" / "data"
    assert mnist(target, download=True).x_train.shape == (3, 784)
    kept = sorted(path.name for path in (target / "mnist").iterdir())
    assert kept == sorted(f"{name}.gz" for name in tiny)
    monkeypatch.setattr(datasets, "_MNIST", datasets._MNIST._replace(mirrors=()))
    assert mnist(target, download=True).x_test.shape == (2, 784)


def test_failed_download_leaves_nothing_and_lists_the_mirrors(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = write(tmp_path / "broken", tiny)
    for path in broken.iterdir():
        path.write_bytes(cut(path.read_bytes()))
    mirrors = (f"{(tmp_path / 'gone').as_uri()}/", f"{broken.as_uri()}/")
    monkeypatch.setattr(datasets, "_MNIST", datasets._MNIST._replace(mirrors=mirrors))
    with pytest.raises(ConnectionError, match=r"(?s)by hand.*gone/train.*broken/train"):
        mnist(tmp_path / "data", download=True)
    assert not list((tmp_path / "data" / "mnist").iterdir())


def test_read_idx_gives_any_array_of_bytes(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "some.idx").write_bytes(idx(array))
    found = read_idx(tmp_path / "some.idx")
    np.testing.assert_array_equal(found, array)
    found[0] = 0  # the caller's own


@needs_data
def test_real_mnist() -> None:
    split = mnist()
    assert [array.shape for array in split] == [(60_000, 784), (10_000, 784), (60_000,), (10_000,)]
    assert split.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert split.x_train.mean(dtype=float) * 255 == pytest.approx(33.3184, abs=1e-4)


@needs_data
def test_real_fashion_mnist() -> None:
    split = datasets.fashion_mnist(flatten=False)
    assert split.x_test.shape == (10_000, 1, 28, 28)
    assert split.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


@needs_data
def test_mnist_is_not_taken_for_fashion_mnist() -> None:
    with pytest.raises(ValueError, match=r"train-images.*not the .* of Fashion-MNIST"):
        datasets.fashion_mnist(Path(os.environ["PPL_VAE_DATA"]) / "mnist")
