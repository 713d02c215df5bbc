"""Tables from CSV files: numbers, words, gaps, and what is wrong with a file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppl_vae.datasets import csv_table

needs_data = pytest.mark.skipif(
    "PPL_VAE_DATA" not in os.environ,
    reason="set PPL_VAE_DATA to a folder with tabular/*.csv",
)


def table_file(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_table_of_numbers_words_and_gaps(tmp_path: Path) -> None:
    text = '\ufeffa, kind ,b\n1,"y, z",-2e3\n,x,NA\n\n nan ,?, 4 \n'
    table = csv_table(table_file(tmp_path, text), categorical=["kind"])
    assert table.columns == ("a", "kind", "b")
    assert table.categories == {"kind": ("x", "y, z")}
    expected = [[1, 1, -2000], [np.nan, 0, np.nan], [np.nan, np.nan, 4]]
    np.testing.assert_array_equal(table.x, expected)


def test_nan_is_missing_in_any_case_and_column(tmp_path: Path) -> None:
    text = "kind,size\nx,1\nnan,NaN\nNaN,nan\ny,2\n"
    table = csv_table(table_file(tmp_path, text), categorical=["kind"])
    assert table.categories == {"kind": ("x", "y")}
    np.testing.assert_array_equal(table.x, [[0, 1], [np.nan] * 2, [np.nan] * 2, [1, 2]])


@pytest.mark.parametrize("option", ["missing", "categorical", "columns"])
def test_one_word_is_no_collection(tmp_path: Path, option: str) -> None:
    """`"1" in "-1"` is true."""
    path = table_file(tmp_path, "a,b\n1,2\n")
    with pytest.raises(TypeError, match=rf"{option} must be a collection such as \['-1'\]"):
        csv_table(path, **{option: "-1"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": None}, r"missing must be a collection of words.*or \(\) for none, got None"),
        (
            {"missing": [-999]},
            r"missing must hold words.*file spells them: '-999' in place of -999",
        ),
        ({"missing": ["NA", np.float64(-9)]}, r"'-9\.0' in place of np\.float64\(-9\.0\)"),
        ({"categorical": None}, "categorical must be a collection of words.*got None"),
        ({"columns": [0]}, r"columns must hold words.*'0' in place of 0"),
    ],
)
def test_options_that_are_no_words(tmp_path: Path, options: Any, message: str) -> None:
    """No field of a file, which is text, is equal to a number."""
    path = table_file(tmp_path, "0,1\n-999,2\n")
    with pytest.raises(TypeError, match=message):
        csv_table(path, **options)


@pytest.mark.parametrize("missing", [["-999"], {" -999 "}, np.array(["-999"])])
def test_missing_fields_are_told_by_their_text(tmp_path: Path, missing: Any) -> None:
    path = table_file(tmp_path, "a,b\n -999 ,-999.0\n")
    np.testing.assert_array_equal(csv_table(path, missing=missing).x, [[np.nan, -999]])
    assert np.isnan(csv_table(path, missing=[*missing, "-999.0"]).x).all()


def test_table_columns_are_chosen_and_ordered(tmp_path: Path) -> None:
    path = table_file(tmp_path, "when;a;b\nMonday;1;-9\nTuesday;2;3\n")
    table = csv_table(path, columns=["b", "a"], missing=["-9"], delimiter=";")
    np.testing.assert_array_equal(table.x, [[np.nan, 1], [3, 2]])


def test_columns_may_be_named_by_whole_numbers(tmp_path: Path) -> None:
    assert csv_table(table_file(tmp_path, "0,1\n0.5,2\n")).columns == ("0", "1")


def test_empty_line_is_a_missing_field_in_a_table_of_one_column(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        csv_table(table_file(tmp_path, "a\n1\n\n3\n")).x, [[1], [np.nan], [3]]
    )


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,b\n1,2\n3,x\n", {}, r"line 3 \(row 1\), column 'b': 'x' is not .*categorical="),
        ("a,b\n1,inf\n", {}, "line 2.*'inf' is not a finite number"),
        ("a,b\n1,1_000\n", {}, "'1_000' is not"),
        ("a,b\n1,2\n\n1\n", {}, r"line 4 \(row 1\): expected the 2 fields.*got 1.*delimiter="),
        ("a,b\n1,2,3\n", {}, "line 2.*got 3"),
        ("a,a\n1,2\n", {}, "two columns named 'a'"),
        ("a,b\n", {}, "no rows"),
        ("", {}, "no rows"),
        ("0.5,2\n0.7,3\n", {}, r"no column names.*'0\.5,2'.*line of names"),
        ("a,b\n1,2\n", {"columns": ["c"]}, "no column 'c'; it has a, b"),
        ("a,b\n1,2\n", {"categorical": ["kind"]}, "no column 'kind'"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"table\.csv.*{words}"):
        csv_table(table_file(tmp_path, text), **options)


def test_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"table\.csv cannot be read as UTF-8"):
        csv_table(path)


@needs_data
@pytest.mark.parametrize(
    ("name", "categorical", "num_rows", "num_missing"),
    [
        ("horse-colic", (), 300, 1605),
        ("beijing-pm25", ("cbwd",), 43824, 2067),
        ("california-housing", ("ocean_proximity",), 20640, 207),
    ],
)
def test_real_tables(name: str, categorical: Any, num_rows: int, num_missing: int) -> None:
    path = Path(os.environ["PPL_VAE_DATA"]) / "tabular" / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    table = csv_table(path, categorical=categorical)
    assert len(table.x) == num_rows
    assert np.isnan(table.x).sum() == num_missing
