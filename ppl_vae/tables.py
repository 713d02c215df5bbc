"""Tables with missing fields, from CSV files."""

import csv
import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Table", "csv_table"]


class Table(NamedTuple):
    """A table of numbers.

    Shapes: `x` (rows, columns), float64, NaN where a field is missing; `columns` has their names;
    `categories` maps the name of a categorical column to its words, whose positions are the codes.
    """

    x: NDArray[np.float64]
    columns: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]


def csv_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    categorical: Collection[str] = (),
    missing: Collection[str] = ("", "NA", "?"),
    delimiter: str = ",",
) -> Table:
    """Read a CSV file whose first line names the columns; missing fields become NaN.

    Args:
        path: the file, UTF-8.
        columns: names of those to read, in that order; None reads all.
        categorical: names of those that hold words; each word becomes its position in sorted order.
        missing: fields that mean "missing", apart from NaN in any case; blanks around are ignored.
            They are compared as text: "-999" is not -999.0, so give each spelling in the file.
        delimiter: between fields.

    Raises:
        FileNotFoundError: no such file.
        TypeError: no collection of names or fields, or one that holds something else than text.
        ValueError: no header or no rows, a column named twice or unknown, a row with too many or
            too few fields, or a field that is not a finite number; names the line and column.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "shells.csv"
        >>> _ = file.write_text("sex,length\\nM,0.5\\nF,\\n")
        >>> csv_table(file, categorical=["sex"])
        Table(x=array([[1. , 0.5],
               [0. , nan]]), columns=('sex', 'length'), categories={'sex': ('F', 'M')})
    """
    _check_words("columns", () if columns is None else columns)
    _check_words("categorical", categorical)
    _check_words("missing", missing)
    missing = {field.strip() for field in missing}
    header, lines, rows = _read(Path(path), delimiter)
    chosen = tuple(header if columns is None else columns)
    _check_names(path, header, [*chosen, *categorical])
    x = np.empty((len(rows), len(chosen)))
    categories = {}
    for number, name in enumerate(chosen):
        position = header.index(name)
        column = [row[position] for row in rows]
        fields = [None if f in missing or f.lower() == "nan" else f for f in column]
        if name in categorical:
            categories[name] = tuple(sorted({field for field in fields if field is not None}))
            parse = _word_code(categories[name])
        else:
            parse = _number
        x[:, number] = _parsed(fields, parse, lines, name, path)
    return Table(x, chosen, categories)


def _check_words(option: str, given: Any) -> None:
    if isinstance(given, str):
        raise TypeError(f"{option} must be a collection such as [{given!r}], got {given!r}.")
    if not isinstance(given, Collection):
        raise TypeError(
            f"{option} must be a collection of words such as ['a', 'b'], or () for none, got "
            f"{given!r}."
        )
    for word in given:
        if not isinstance(word, str):
            raise TypeError(
                f"{option} must hold words as the file spells them: {str(word)!r} in place of "
                f"{word!r}."
            )


def _read(path: Path, delimiter: str) -> tuple[list[str], list[int], list[list[str]]]:
    """Return the header, the line number of each row, and the rows, blanks stripped."""
    lines, rows = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                # An empty line is a missing field in a table of one column, else it is no row.
                if row or len(header) == 1:
                    lines.append(reader.line_num)
                    rows.append([field.strip() for field in row or [""]])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 CSV: {error}.") from error
    _check_form(path, header, lines, rows, delimiter)
    return header, lines, rows


def _check_form(
    path: Path, header: list[str], lines: list[int], rows: list[list[str]], delimiter: str
) -> None:
    if not rows:
        raise ValueError(f"{path} has no rows: expected a line of column names, then the rows.")
    numbers = [name for name in header if _is_number(name)]
    if len(numbers) == len(header) and not all(name.isdigit() for name in header):
        raise ValueError(
            f"{path} has no column names: its first line, {delimiter.join(header)[:60]!r}, holds "
            "numbers alone. Put a line of names before it."
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ValueError(f"{path} has two columns named {twice[0]!r}; rename one in its header.")
    for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line} (row {number}): expected the {len(header)} fields of the "
                f"header, got {len(row)}. Mend the line, or name the right delimiter= (it is "
                f"{delimiter!r})."
            )


def _check_names(path: str | os.PathLike[str], header: list[str], names: list[str]) -> None:
    unknown = [name for name in names if name not in header]
    if unknown:
        raise ValueError(
            f"{os.fspath(path)} has no column {unknown[0]!r}; it has {', '.join(header)}."
        )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _word_code(words: tuple[str, ...]) -> Callable[[str], float]:
    codes = {word: float(code) for code, word in enumerate(words)}
    return codes.__getitem__


def _number(field: str) -> float:
    value = float(field)
    # Python's own spellings of numbers, "1_000", are not those of tables.
    if math.isinf(value) or "_" in field:
        raise ValueError(field)
    return value


def _parsed(
    fields: list[str | None],
    parse: Callable[[str], float],
    lines: list[int],
    name: str,
    path: str | os.PathLike[str],
) -> list[float]:
    values = []
    for number, field in enumerate(fields):
        try:
            values.append(math.nan if field is None else parse(field))
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(path)}, line {lines[number]} (row {number}), column {name!r}: "
                f"{field!r} is not a finite number. If the column holds words, name it in "
                "categorical=; if the field means missing, add it to missing=; or leave the "
                "column out with columns=."
            ) from error
    return values
