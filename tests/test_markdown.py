"""Markdown tables: what a table says is what was given, as it is aligned."""

from __future__ import annotations

import pytest

from recbole_alt.markdown import markdown_table


def test_a_padded_table_is_a_table_in_its_source_too() -> None:
    assert markdown_table(["a", "long", "n"], [["1|2", "x", "10"], ["", "ΔAUC", "7"]], "lr").splitlines() == [
        "| a    | long |  n |",
        "|------|-----:|---:|",
        "| 1\\|2 |    x | 10 |",
        "|      | ΔAUC |  7 |",
    ]


def test_a_table_of_long_cells_is_not_padded() -> None:
    assert markdown_table(["a", "b", "c"], [["long", "1", ""]], "lrl", pad=False).splitlines() == [
        "| a | b | c |",
        "|---|---:|---|",
        "| long | 1 |  |",
    ]
    assert markdown_table(["a"], []).splitlines() == ["| a |", "|---|"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        markdown_table(["a", "b"], [["1"]])
