"""Many kinds of catalogues: a table of files, each with the expected result."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.catalog.ingest.run import ingest
from store.catalog.read import read_split
from store.config import ColumnConfig
from store.errors import CatalogError
from store.schema import WEIGHT
from store.workspace import Workspace

HEAD = "sample_id,catalog_content,price"
MISSING = object()


def columns(**given: Any) -> ColumnConfig:
    return ColumnConfig(**given)


def csv_of(column: str, cells: list[str], quote: str = '"') -> str:
    """A catalogue with one column more, its cells quoted."""
    rows = [f"{i},item {i},{i + 1},{quote}{cell}{quote}" for i, cell in enumerate(cells)]
    return "\n".join([f"{HEAD},{column}", *rows]) + "\n"


def prices(*written: str) -> str:
    return HEAD + "\n" + "".join(f'{i},item {i},"{price}"\n' for i, price in enumerate(written))


ABOUT = [
    f"{colour} {wood} number {i}"
    for i, (colour, wood) in enumerate(zip(["red", "grey", "blue"] * 20, ["oak", "ash"] * 30))
]
WITH_ABOUT = [f"item {i}\nabout: {about}" for i, about in enumerate(ABOUT)]


def german(column: str, cells: list[str]) -> str:
    """As `csv_of`, with prices that tell how numbers are written."""
    rows = [f"{i};item {i};1.299,{i:02} €;{cell}" for i, cell in enumerate(cells)]
    return "\n".join([f"{HEAD},{column}".replace(",", ";"), *rows]) + "\n"


@dataclass(frozen=True)
class Kind:
    """One kind of file and what comes of it."""

    name: str
    train: Any  # the text of a CSV file, or an Arrow table for Parquet
    right: dict[str, list[Any]] = field(
        default_factory=dict
    )  # column -> values; `MISSING`: there is no such column
    test: Any = None
    right_test: dict[str, list[Any]] = field(default_factory=dict)
    given: ColumnConfig | None = None
    right_holdout: list[float] | None = None
    notes: tuple[str, ...] = ()  # parts of what is said
    rejected: dict[str, int] = field(default_factory=dict)
    error: str | None = None  # a pattern


def _many(n: int, cell: str, other: str, at: int = 7) -> list[str]:
    return [other if i == at else cell.format(i) for i in range(n)]


PRICES = [
    Kind("thousands by commas", prices("1,299.00", "499", "89.5"), {"price": [1299.0, 499.0, 89.5]},
         notes=("read as 1,299.50",)),
    Kind("a sign before the price", prices("$1,299", "$499"), {"price": [1299.0, 499.0]},
         notes=("marked '$' in 2 rows",)),
    Kind("rupees, some with a sign", prices("₹2,199.00", "Rs. 499", "Rs.1,05,000", "₹ 12/-"),
         {"price": [2199.0, 499.0, 105000.0, 12.0]}),
    Kind("decimal commas", prices("1.299,00 €", "12 €", "4,5 €"), {"price": [1299.0, 12.0, 4.5]},
         notes=("read as 1.299,50: a point separates thousands", "marked '€' in 3 rows")),
    Kind("thousands by blanks", prices("1 299,00 kr", "12\u00a0500 kr", "5 kr"),
         {"price": [1299.0, 12500.0, 5.0]}),
    Kind("thousands by apostrophes", prices("CHF 1'299.50", "CHF 5.-"), {"price": [1299.5, 5.0]}),
    Kind("a point before three digits, beside numbers below a thousand", prices("1.299", "499", "899"),
         {"price": [1299.0, 499.0, 899.0]}, notes=("read as 1.299,50",)),
    Kind("a point before three digits everywhere", prices("12.500", "3.250"), {"price": [12.5, 3.25]},
         notes=("no price tells for sure; pass '--decimal comma'",)),
    Kind("the same with the mark given", prices("12.500", "3.250"), {"price": [12500.0, 3250.0]},
         given=columns(decimal="comma")),
    Kind("full-width characters", prices("￥５００", "￥1，299"), {"price": [500.0, 1299.0]}, notes=("marked '¥' in 2 rows",)),
    Kind("prices as formulas of a spreadsheet", prices('=""12.50""', '=""1,299.00""'), {"price": [12.5, 1299.0]}),
    Kind("numbers as programs write them", prices("1e3", "5.", ".5", "+7", "0.0001"),
         {"price": [1000.0, 5.0, 0.5, 7.0, 0.0001]}),
    Kind("two currencies", prices("$5", "€6", "€7"), error=r"2 currencies \(€ in 2 rows, \$ in 1 rows\)"),
    Kind("shillings", prices("KSh 1,001", "KSh 284"), {"price": [1001.0, 284.0]}, notes=("marked 'KSh' in 2 rows",)),
    Kind("a sign of a letter and a stroke", prices("S/. 12.50", "S/ 7"), {"price": [12.5, 7.0]}, notes=("marked 'S/.' in 2 rows",)),
    Kind("roubles in short", prices("1 290 р.", "74 ₽"), {"price": [1290.0, 74.0]}),
    Kind("ranges", prices("10-12", *["5"] * 30), rejected={"price is a range (--price-range mid takes its middle)": 1}),
    Kind("ranges, their middle", prices("10-12", "$4 – $6", "5 to 6", "5"), {"price": [11.0, 5.0, 5.5, 5.0]},
         given=columns(price_range="mid")),
    Kind("a price in the other convention", prices(*["1.5"] * 40, "1,55"),
         rejected={"price is not written as 1,299.50": 1}),
    Kind("words for a price", prices("ask", *["5"] * 30), rejected={"price is not a number": 1}),
    Kind("more than a twentieth without a price", prices("", *["5"] * 10),
         error=r"1 of 11 rows of .* more than --max-rejected 0.05 allows: 1 with price is missing .*take them out, or pass --max-rejected 0.091"),
    Kind("a hold-out in another currency", prices("$1,299.00", "$5"), test=prices("€5", "€6"),
         error=r"'price' holds prices in \$ \(2 rows of .*train.csv\) and in € \(2 rows of .*test.csv\): nothing is converted"),
    Kind("a hold-out with prices that can't be used", prices("$1,299.00", "$5"),
         test=prices("$1,299.00", "abc", "-5", "10-12", ""), right_holdout=[1299.0],
         notes=("its 1 prices are kept apart", "; 3 others can't be used (first: line 3, price is not a number: 'abc')")),
    Kind("a hold-out of which no price can be used", prices("5", "6"), test=prices("abc", "-5"), right_holdout=[],
         notes=("none of its 2 prices can be used (first: line 2, price is not a number: 'abc')",)),
    Kind("a hold-out in the other convention", prices("1,299.00", "5"), test=prices("1.299,00", "12,50", "7.500"),
         right_holdout=[1299.0, 12.5, 7500.0], notes=("they are written as 1.299,50, other than those of the training",)),
    Kind("a hold-out whose prices do not tell", prices("1,299.00", "5"), test=prices("€1,500", "7"),
         right_holdout=[1500.0, 7.0], notes=("marked '€', and taken to be in the currency of the training file",)),
    Kind("the same, allowed", prices("", *["5"] * 10), {"price": [5.0] * 10}, given=columns(max_rejected=0.1),
         rejected={"price is missing": 1}),
]  # fmt: skip

IDS = [
    Kind("the same ids in both files", f"{HEAD}\n0,a,5\n1,b,6\n", {"sample_id": [0, 1], "text": ["a", "b"]},
         test=f"{HEAD[:-6]}\n0,c\n1,d\n", right_test={"sample_id": [0, 1], "text": ["c", "d"]},
         notes=("2 ids stand in both files",)),
    Kind("no column of ids", "title,price\na,5\nb,6\n", {"sample_id": [1, 2]}, given=columns(text="title"),
         notes=("has no column of ids: its rows are numbered from 1",)),
    Kind("row numbers count rows that can't be read", "title,price\na,5\nb,6,7\nc,8\n" + "d,9\n" * 30,
         {"sample_id": [1, *range(3, 34)]}, given=columns(text="title"), rejected={"wrong number of fields": 1}),
    Kind("row numbers asked for", "name,price\na,5\na,6\n", {"sample_id": [1, 2]},
         given=columns(sample_id="row-number", text="name")),
    Kind("the index of a saved table", ",title,price\n7,a,5\n3,b,6\n", {"sample_id": [7, 3]},
         given=columns(text="title"), notes=("those of its index are taken",)),
    Kind("an index that is no id", ",title,price\n7,a,5\n7,b,6\n", {"sample_id": [1, 2]},
         given=columns(text="title")),
    Kind("a column that looks like ids", "title,sku,price\na,X1,5\nb,X2,6\n", given=columns(text="title"),
         error="no column 'sample_id'.*'--id-column sku'"),
    Kind("a column that is called nearly so and holds no ids", "title,scrape_id,id,price\na,7,X1,5\nb,7,X2,6\n", given=columns(text="title"),
         error="no column 'sample_id'.*'--id-column id'"),
    Kind("two columns that look like ids", "title,sku,sample-id,price\na,X1,1,5\nb,X2,2,6\n", given=columns(text="title"),
         error="no column 'sample_id'.*'--id-column sample-id'"),
    Kind("ids of other names", "train_id,catalog_content,price\n5,a,5\n", {"sample_id": [5]},
         test="test_id,catalog_content\n9,c\n", right_test={"sample_id": [9]},
         given=columns(sample_id="train_id", test_id="test_id")),
    Kind("the other name not given", "train_id,catalog_content,price\n5,a,5\n", test="test_id,catalog_content\n9,c\n",
         given=columns(sample_id="train_id"), error="test.csv has no column 'train_id'.*'--test-id-column test_id'"),
    Kind("the wrong column of ids", "name,catalog_content,price\n" + "a,x,5\n" * 9, given=columns(sample_id="name"),
         error="8 of 9 rows .*8 with duplicate id.*'--id-column row-number'"),
    Kind("ids that a spreadsheet shortened", f"{HEAD}\n" + "1.23E+12,a,5\n" * 3,
         error=r"3 ids in column 'sample_id' .*'1.23E\+12' \(first: line 2\): a spreadsheet has shortened them"),
    Kind("the id NA", f"{HEAD}\nUS,a,5\nNA,b,6\n", {"sample_id": ["US", "NA"]}),
    Kind("NA for a missing id", f"{HEAD}\n" + "".join(f"{i},a,5\n" for i in range(40)) + "NA,b,6\n",
         {"sample_id": list(range(40))}, rejected={"no id": 1}),
]  # fmt: skip

ROWS = [
    Kind("a line of totals", f"{HEAD}\n" + "".join(f"{i},a,5\n" for i in range(40)) + "Total,,200\n",
         {"price": [5.0] * 40}, rejected={"a line of totals": 1}),
    Kind("totals below a text", "catalog_content,price,stock\n" + "a,5,1\n" * 40 + "Grand Total:,200,40\n",
         {"price": [5.0] * 40}, rejected={"a line of totals": 1}),
    Kind("subtotals", f"{HEAD}\n" + "".join(f"{i},a,5\n" for i in range(40)) + "Subtotal: a,,200\n"
         + "".join(f"{i},b,{i}\n" for i in range(40, 80)) + 'Subtotal,,2380\nTOTAL,80 products,"2,580.00"\n',
         {"sample_id": list(range(80))}, rejected={"a line of totals": 3}),
    Kind("a mean", f"{HEAD}\n" + "".join(f"{i},a,{i + 1}\n" for i in range(40)) + "Average of all,40 products,20.5\n",
         {"sample_id": list(range(40))}, rejected={"a line of totals": 1}),
    Kind("a sum without a word", "catalog_content,price\n" + "a,5\n" * 40 + ",200\n", {"price": [5.0] * 40},
         rejected={"a line of totals": 1}),
    Kind("products whose names begin with such a word", "catalog_content,price\nSum 41 shoes,5\nTotal Care,6\nTotal Gym,200\nMedia rack,7\n,9\n",
         {"price": [5.0, 6.0, 200.0, 7.0, 9.0]}),
    Kind("a product called Total", f"{HEAD}\n1,a,5\n2,Total,6\n", {"text": ["a", "Total"]}),
    Kind("a header repeated", f"{HEAD}\n" + "".join(f"{i},a,5\n" for i in range(40)) + f"{HEAD}\n99,b,6\n",
         {"price": [5.0] * 40 + [6.0]}, rejected={"header repeated": 1}),
    Kind("pipes", "sample_id|catalog_content|price\n1|a, b; c|5\n", {"text": ["a, b; c"]}),
    Kind("a line for spreadsheets", "sep=;\nsample_id;catalog_content;price\n1;a,b,c;5\n", {"text": ["a,b,c"]}),
    Kind("lines before the header", f"Export of the shop, all rows\n\nmade, by, a, tool\n{HEAD}\n1,a,5\n2,b,6\n3,c,7\n",
         {"sample_id": [1, 2, 3]}, notes=("the first 3 lines",)),
    Kind("a title before a header with semicolons", "Price list\nsample_id;catalog_content;price\n1;a;5\n2;b;6\n3;c;7\n",
         {"price": [5.0, 6.0, 7.0]}, notes=("the first 1 lines",)),
    Kind("a title before a table of two columns", "Price list of May\n\ncatalog_content;price\ntea;5\nsoap, bar;$6.50\nrope;7\n",
         {"text": ["tea", "soap, bar", "rope"], "price": [5.0, 6.5, 7.0]}, notes=("the first 2 lines",)),
    Kind("a title before ids and texts", f"{HEAD}\n1,a,5\n", test="All products\nsample_id,catalog_content\nA7,tea\nA8,soap\n",
         right_test={"sample_id": ["A7", "A8"]}, notes=("the first 1 lines",)),
    Kind("one column of texts with a comma", "title,price\na,5\n", given=columns(text="title", sample_id="row-number"),
         test="title\ntea, black\nsoap, white\nrope, long\n", error="none of the 3 rows .*3 with wrong number of fields"),
    Kind("semicolons in quoted names", 'sample_id,catalog_content,price,"size; in; all; mm"\n1,a,5,3\n2,b,6,4\n',
         {"numeric:size; in; all; mm": [3.0, 4.0]}),
    *(
        Kind(f"names that {mark!r} parts", mark.join(HEAD.split(",")) + f"\n1{mark}a{mark}5\n", error="they are not parted by a comma, semicolon")
        for mark in ("~", ":", "  ", " ")
    ),
    Kind("a wrong line for spreadsheets", f"sep=;\n{HEAD}\n1,a,5\n", error="a line 'sep=' above them gives another mark"),
    Kind("JSON lines", '{"sample_id": 1, "catalog_content": "a"}\n', error=r"is JSON, not CSV: .* pandas.read_json\('.*train.csv', lines=True\)"),
    Kind("JSON", '[\n {"sample_id": 1, "catalog_content": "a"}]\n', error=r"is JSON, not CSV: .* pandas.read_json\('.*train.csv'\)"),
    Kind("HTML instead of CSV", "<!DOCTYPE html>\n<table><tr><td>1</td></tr></table>\n", error="is HTML or XML, not CSV"),
    Kind("names in angle brackets", "<id>,<name>,<price>\n1,a,5\n", {"text": ["a"]}, given=columns(sample_id="<id>", text="<name>", price="<price>")),
    Kind("a test file of one column", f"{HEAD}\n1,a,5\n", test="my catalog_content\na\n", error="""with "--text-column 'my catalog_content'\""""),
    Kind("a name for a shell", "sample_id,the catalog content,price\n1,a,5\n", error="""name the right one with "--text-column 'the catalog content'\""""),
    Kind("a mark that is not known", "sample_id^catalog_content^price\n1^a^5\n", error=r"'sample_id\^catalog_content\^price'"),
    Kind("prices of test rows", f"{HEAD}\n1,a,5\n", test=f"{HEAD}\n2,b,6\n3,c,\n", right_test={"price": MISSING},
         notes=("its 1 prices are kept apart in catalog/holdout.parquet",)),
]  # fmt: skip

NUMBERS = [
    Kind("numbers with a unit", csv_of("ram", ["8GB", "16GB", "", "4 GB"]), {"numeric:ram": [8.0, 16.0, None, 4.0]},
         notes=("'ram' is read as numbers in 'GB'",)),
    Kind("words for no value", csv_of("ram", ["8GB", "n/a", "", "4 GB", "N/A", "16GB"]),
         {"numeric:ram": [8.0, None, None, 4.0, None, 16.0]},
         notes=("'ram' holds 2 cells in train that say there is no value (first: 'n/a'): taken as missing",)),
    Kind("units of one kind", csv_of("disk", ["500GB", "1TB", "256GB"]), {"numeric:disk": [500.0, 1000.0, 256.0]}),
    Kind("weights", csv_of("weight", ["1.37kg", "2kg", "950 g"]), {"numeric:weight": [1.37, 2.0, 0.95]}),
    Kind("a unit in the singular and in the plural", csv_of("beds", ["4 bedrooms", "1 bedroom", "2 bedrooms", "3"]), {"numeric:beds": [4.0, 1.0, 2.0, 3.0]},
         test=csv_of("beds", ["1 bedroom", "5 baths"]), right_test={"numeric:beds": [1.0, None]}, notes=("'beds' is read as numbers in 'bedrooms'",)),
    Kind("a unit in the plural alone", csv_of("beds", ["4 beds", "2 beds", "3"]), {"numeric:beds": [4.0, 2.0, 3.0]},
         test=csv_of("beds", ["1 bed"]), right_test={"numeric:beds": [1.0]}),
    Kind("a unit of a trade", csv_of("mileage", ["18.9 kmpl", "20.0 kmpl"]), {"numeric:mileage": [18.9, 20.0]}),
    Kind("percentages", csv_of("fat", ["45%", "3.5 %"]), {"numeric:fat": [45.0, 3.5]}),
    Kind("thousands", csv_of("km", ["12,345", "1,234,567", "900"]), {"numeric:km": [12345.0, 1234567.0, 900.0]}),
    Kind("thousands that go down to zero", csv_of("km", ["82,000 km", "164,820 km", "1,200 km", "320 km", "0 km", "5 km"]),
         {"numeric:km": [82000.0, 164820.0, 1200.0, 320.0, 0.0, 5.0]}, notes=("'km' is read as numbers in 'km'",)),
    Kind("decimal commas", csv_of("size", ["4,5", "10,25", "7"]), {"numeric:size": [4.5, 10.25, 7.0]},
         notes=("written as 1.299,50",)),
    Kind("thousands by points, as the prices", german("x", ["1.234", "900", "12.500"]), {"numeric:x": [1234.0, 900.0, 12500.0]},
         notes=("'x' is read as numbers, written as 1.299,50",)),
    Kind("weights of rows, as the prices", german("w", ["1.234", "1,5", "7"]), {WEIGHT.name: [1234.0, 1.5, 7.0]}, given=columns(weight="w")),
    Kind("the same in every cell", german("x", ["1.234", "2.345", "12.500"]), {"numeric:x": [1234.0, 2345.0, 12500.0]}),
    Kind("decimals that are far from thousands", german("x", ["1.370", "2", "3"]), {"numeric:x": [1.37, 2.0, 3.0]}),
    Kind("decimals of programs beside other prices", german("x", ["1.234", "0.5", "2"]), {"numeric:x": [1.234, 0.5, 2.0]}),
    Kind("decimals with a comma, as the prices", german("x", ["1,234 kg", "2,345 kg", "0 kg"]), {"numeric:x": [1.234, 2.345, 0.0]}),
    Kind("three decimals beside prices with a point", csv_of("x", ["1.234", "2.345"]), {"numeric:x": [1.234, 2.345]}),
    Kind("another unit of the dimension in test", csv_of("size", ["500 g", "250 g"]), {"numeric:size": [500.0, 250.0]},
         test="sample_id,catalog_content,size\n7,a,1.5 kg\n8,b,2 l\n", right_test={"numeric:size": [1500.0, None]},
         notes=("holds 1 values in test that are no numbers in 'g' (first: '2 l')",)),
    Kind("another currency in test", csv_of("cost", ["$5", "$6"]), {"numeric:cost": [5.0, 6.0]},
         test="sample_id,catalog_content,cost\n7,a,€5\n8,b,$7\n", right_test={"numeric:cost": [None, 7.0]},
         notes=("holds 1 values in test that are no numbers in '$' (first: '€5')",)),
    Kind("another convention in test", german("x", ["149.000,00", "1,5"]), test=german("x", ["2734.900", "1,5"]),
         right_test={"numeric:x": [None, 1.5]},
         notes=("holds 1 values in test that are no numbers without a unit, written as 1.299,50 (first: '2734.900')",)),
    Kind("bounds", csv_of("age", ["<5", "~3", "7"]), {"numeric:age": [5.0, 3.0, 7.0]},
         notes=("'age' holds 2 numbers in train that are not exact (first: '<5'): taken as the number",)),
    Kind("codes of digits", csv_of("code", ["007", "012", "0", "5"]), {"numeric:code": [7.0, 12.0, 0.0, 5.0]},
         notes=("'code' holds 2 numbers in train with zeros before them (first: '007'): where they are codes, pass '--categorical code'",)),
    Kind("degrees", csv_of("t", ["-5°C", "7 °C"]), {"numeric:t": [-5.0, 7.0]}),
    Kind("too many words among numbers", csv_of("rooms", [*_many(100, "{}", "ask"), "big", "3 or 4"]), {"numeric:rooms": MISSING},
         notes=("'rooms' is left out: 102 distinct values", "; 97.1% of its values are numbers: '--numeric rooms' takes the others as missing")),
    Kind("the same, asked for", csv_of("rooms", [*_many(100, "{}", "ask"), "big", "3 or 4"]),
         {"numeric:rooms": [*(None if i == 7 else float(i) for i in range(100)), None, None]}, given=columns(numeric=("rooms",)),
         notes=("'rooms' holds 3 values in train that are no numbers (first: 'ask'): taken as missing",)),
    Kind("numbers asked for in an empty column", csv_of("rooms", ["", ""]), {"numeric:rooms": [None, None]}, given=columns(numeric=("rooms",))),
    Kind("mostly words, asked for", csv_of("rooms", ["", "", "", "1", "ask"]), given=columns(numeric=("rooms",)), error="line 6 of .* holds 'ask'"),
    Kind("words among a few numbers", csv_of("rooms", ["1", "2", "ask", "1", "2"]), {"categorical:rooms": ["1", "2", "ask", "1", "2"]},
         notes=("'rooms' is read as categories; 80.0% of its values are numbers: '--numeric rooms'",)),
    Kind("a stray word among truth values", csv_of("new", _many(100, "true", "ask")),
         {"numeric:new": [None if i == 7 else 1.0 for i in range(100)]}, notes=("'new' holds 1 values in train that are no",)),
    Kind("several currencies beside the prices", csv_of("currency", ["USD", "EUR", "USD", ""]),
         error=r"'currency' holds 2 currencies \(\$ in 2 rows, € in 1 rows\) beside prices without one.*'--categorical currency'"),
    Kind("another currency beside the test's prices", csv_of("money", ["USD", "USD"]), test=csv_of("money", ["EUR"]), error="'money' holds 2 currencies"),
    Kind("the same, kept", csv_of("currency", ["USD", "EUR", "USD"]), {"categorical:currency": ["USD", "EUR", "USD"]},
         given=columns(categorical=("currency",))),
    Kind("amounts with a sign", csv_of("cost", ["$1,200", "$80", "-$5"]), {"numeric:cost": [1200.0, 80.0, -5.0]}),
    Kind("a stray word", csv_of("rooms", _many(100, "{}", "ask")),
         {"numeric:rooms": [None if i == 7 else float(i) for i in range(100)]},
         notes=("'rooms' holds 1 values in train that are no numbers (first: 'ask'): taken as missing",)),
    Kind("stray words in test", csv_of("rooms", ["3 m", "4 m"]), {"numeric:rooms": [3.0, 4.0]},
         test="sample_id,catalog_content,rooms\n7,a,big\n8,b,5 m\n", right_test={"numeric:rooms": [None, 5.0]},
         notes=("holds 1 values in test that are no numbers (first: 'big')",)),
    Kind("sizes of clothes", csv_of("size", ["38", "40", "L", "XL"]), {"categorical:size": ["38", "40", "L", "XL"]},
         given=columns(categorical=("size",))),
    Kind("several units that can't be compared", csv_of("age", ["6 months", "1 year", "6 months", "2 years"]),
         {"categorical:age": ["6 months", "1 year", "6 months", "2 years"]}),
    Kind("ranges of ages", csv_of("age", ["20-30", "30-40", "20-30"]), {"categorical:age": ["20-30", "30-40", "20-30"]}),
    Kind("resolutions", csv_of("screen", ["1366x768", "1920x1080", "1366x768"]),
         {"categorical:screen": ["1366x768", "1920x1080", "1366x768"]}),
    Kind("truth values", csv_of("new", ["True", "False", "", "true"]), {"numeric:new": [1.0, 0.0, None, 1.0]}),
    Kind("a column of numbers asked for", csv_of("size", ["1 m", "big"]), given=columns(numeric=("size",)),
         error="--numeric size: line 3 of .* holds 'big'"),
]  # fmt: skip

OTHERS = [
    Kind("dates", csv_of("seen", ["2024-01-31", "2024-02-29", "", "2023-02-28"]),
         {"numeric:seen (year)": [2024.0, 2024.0, None, 2023.0], "numeric:seen (month)": [1.0, 2.0, None, 2.0],
          "numeric:seen (weekday)": [3.0, 4.0, None, 2.0], "numeric:seen (age in days)": [29.0, 0.0, None, 366.0]},
         notes=("'seen' is read as dates, year first",)),
    Kind("dates with the day first", csv_of("seen", ["05/01/2024", "25/01/2024"]), {"numeric:seen (age in days)": [20.0, 0.0]},
         notes=("dates, day first",)),
    Kind("dates with the month first", csv_of("seen", ["01/05/2024", "01/25/2024"]), {"numeric:seen (age in days)": [20.0, 0.0]}),
    Kind("dates that do not tell their order", csv_of("seen", ["05/06/2024", "04/07/2024"]), {"numeric:seen (month)": [6.0, 7.0]},
         notes=("'seen': no date tells for sure whether the day or the month stands first, day first is taken: write the dates year first",)),
    Kind("dates with two digits of the year", csv_of("seen", ["31-Jan-24", "1 Feb 99"]), {"numeric:seen (year)": [2024.0, 1999.0]}),
    Kind("dates that stand for none", csv_of("end", [*[f"2024-01-{i + 1:02}" for i in range(30)] * 2, "9999-12-31"]),
         {"numeric:end (age in days)": [*[29.0 - i for i in range(30)] * 2, None]},
         notes=("'end' holds 1 values in train that are no dates (first: '9999-12-31')",)),
    Kind("a column that is called as the part of a date", f"{HEAD},x,x (year)\n1,a,5,2024-01-01,3\n2,b,6,2023-01-01,4\n",
         error=r"column 'x \(year\)' of .* becomes 'x \(year\)', and another column is called so: rename one"),
    Kind("no text at all", f"{HEAD}\n1,,5\n2,nan,6\n", {"text": ["", ""]}, notes=("has a text in 'catalog_content'",)),
    Kind("dates in words", csv_of("seen", ["March 5, 2024", "April 5, 2024"]), {"numeric:seen (month)": [3.0, 4.0]}),
    Kind("times", csv_of("seen", ["2024-01-31T10:00:00Z", "2024-02-01 09:30"]), {"numeric:seen (age in days)": [1.0, 0.0]}),
    Kind("dates of test rows", csv_of("seen", ["2024-01-01", "2024-01-11"]), {"numeric:seen (age in days)": [10.0, 0.0]},
         test="sample_id,catalog_content,seen\n7,a,2024-01-21\n8,b,soon\n", right_test={"numeric:seen (age in days)": [-10.0, None]},
         notes=("holds 1 values in test that are no dates (first: 'soon')",)),
    Kind("a second text that is nearly always another", csv_of("note", [f"words {i}" for i in range(79)] + ["words 1"]),
         {"categorical:note": MISSING, "text": [f"item {i}" for i in range(80)]},
         notes=("79 distinct values in 80 rows are free text", "--text-column to join it to the text")),
    Kind("words that differ in nearly every row", csv_of("about", ABOUT), {"categorical:about": MISSING, "text": WITH_ABOUT},
         test="sample_id,catalog_content,about\n70,item,red oak\n71,other,\n", right_test={"text": ["item\nabout: red oak", "other"]},
         notes=("column 'about' differs in nearly every row: its words are joined to the text",)),
    Kind("such words in train alone", csv_of("about", ABOUT), {"text": [f"item {i}" for i in range(60)]},
         test="sample_id,catalog_content\n70,item\n", notes=("column 'about' is in", "only: left out")),
    Kind("such words as a category", csv_of("about", ABOUT), {"categorical:about": ABOUT}, given=columns(categorical=("about",))),
    Kind("such words that are left out", csv_of("about", ABOUT), {"categorical:about": MISSING, "text": [f"item {i}" for i in range(60)]},
         given=columns(left_out=("about",))),
    Kind("a column to leave out that is not there", csv_of("about", ABOUT), given=columns(left_out=("abut",)), error="no column 'abut'.*--leave-out about"),
    Kind("such words beside columns that are named as texts", f"{HEAD},more,about\n" + "".join(f"{i},item {i},{i + 1},m,{one}\n" for i, one in enumerate(ABOUT)),
         {"text": [f"item {i}\nmore: m" for i in range(60)]}, given=columns(more_text=("more",)),
         notes=("'about' is left out: it differs in nearly every row, and other columns are named as texts ('--text-column about' joins",)),
    Kind("codes with a word before them", csv_of("mark", [f"SKU {i * 7919:x} a" for i in range(60)]), notes=("60 distinct values in 60 rows are free text",)),
    Kind("numbers among few words", csv_of("size", [*[f"{i} cm" for i in range(40)], *[f"about {i} red mm" for i in range(20)]]),
         {"text": [f"item {i}" for i in range(60)]}, notes=("'--numeric size' takes the others as missing",)),
    Kind("words without spaces between them", csv_of("about", [f"{a}{b}{i}" for i, (a, b) in enumerate(zip("红蓝绿黄白黑" * 10, "木铁布纸石" * 12))]),
         notes=("column 'about' differs in nearly every row: its words are joined",)),
    Kind("a hash of each row", csv_of("mark", [f"{i * 7919:016x}" for i in range(1, 81)]), {"categorical:mark": MISSING},
         notes=("80 different codes in 80 rows are an id or a hash", "--categorical")),
    Kind("two columns of text", "sample_id,title,details,price\n1,Tea,green,5\n2,Mug,,6\n3,,red,7\n",
         {"text": ["Tea\ndetails: green", "Mug", "details: red"], "name": ["Tea", "Mug", "details: red"]},
         given=columns(text="title", more_text=("details",))),
    *(
        Kind(f"the prices as {option}", prices("5", "6"), given=columns(**given), error=f"{option} price: that column holds the prices")
        for option, given in {
            "--text-column": {"more_text": ("price",)}, "--id-column": {"sample_id": "price"}, "--group-column": {"group": "price"},
            "--image-column": {"image_link": "price"}, "--time-column": {"time": "price"}, "--test-id-column": {"test_id": "price"},
        }.items()
    ),
    Kind("the prices as weights", prices("5", "6"), {WEIGHT.name: [5.0, 6.0]}, given=columns(weight="price"), notes=("counts as much as its price",)),
    Kind("links to images under another name", csv_of("main image", [f"https://x/{i}.jpg?a=1" for i in range(60)]), {"categorical:main image": MISSING},
         notes=("""'main image' is left out: it looks like images (name it with "--image-column 'main image'\"""",
                """no column 'image_link': its rows have no image link ("--image-column 'main image'" names one""")),
    Kind("links without an extension", csv_of("photo", [f"https://x/{i}" for i in range(60)]), notes=("'--image-column photo' names one that holds",)),
    Kind("lists in cells", csv_of("tags", ["['red', 'wool']", "['silk']", "['silk']"]), {"categorical:tags": ["['red', 'wool']", "['silk']", "['silk']"]},
         notes=("'tags' is read as categories; its cells are lists: '--text-column tags' joins",)),
    Kind("a value in one row alone", csv_of("agent", ["", "Ann", "", ""]), {"categorical:agent": MISSING},
         notes=("'agent' is left out: one row alone has a value (name it with --categorical to keep it)",)),
    Kind("links to pages", csv_of("page", [f"https://x/{i}" for i in range(60)]), notes=("'page' is left out: 60 distinct values in 60 rows are free",)),
    Kind("HTML", f'{HEAD}\n1,"<p>Fish &amp; <b>chips</b><br/>2 pieces</p>",5\n2,a < b & c,6\n',
         {"text": ["Fish & chips\n2 pieces", "a < b & c"], "name": ["Fish & chips", "a < b & c"]},
         notes=("HTML was taken out of 1 texts",)),
    Kind("HTML in a text of the challenge", f'{HEAD}\n1,"Item Name: Tea<br>green\nValue: 2",5\n',
         {"text": ["Item Name: Tea<br>green\nValue: 2"]}),
    Kind("words for no text", f"{HEAD}\n1,nan,5\n2,None,6\n3,N/A,7\n4,Nando's,8\n", {"text": ["", "", "", "Nando's"]},
         notes=("3 texts of",)),
]  # fmt: skip


def _table(n: int = 3, **more: pa.Array) -> pa.Table:
    plain = {"sample_id": pa.array(range(n)), "catalog_content": pa.array([f"t{i}" for i in range(n)])}
    return pa.table(plain | {"price": pa.array([float(i + 1) for i in range(n)])} | more)


PARQUET = [
    Kind("views of strings", _table(catalog_content=pa.array(["a", "b", "c"], pa.string_view())), {"text": ["a", "b", "c"]}),
    Kind("integers of more than 64 bits", _table(sample_id=pa.array([10**30, 2, 3], pa.decimal128(38, 0))),
         {"sample_id": [str(10**30), "2", "3"]}),
    Kind("prices of more than 128 bits", _table(price=pa.array([5, 6, 7], pa.decimal256(70, 2))), {"price": [5.0, 6.0, 7.0]}),
    Kind("half floats", _table(price=pa.array(np.array([5, 6, 7], np.float16))), {"price": [5.0, 6.0, 7.0]}),
    Kind("unsigned ids", _table(sample_id=pa.array([2**63 + 5, 2, 3], pa.uint64())), {"sample_id": [str(2**63 + 5), "2", "3"]}),
    Kind("text that is not UTF-8", _table(catalog_content=pa.array([b"a", b"\xff", b"c"]).view(pa.string())),
         error="column 'catalog_content' can't be read.*UTF-?8"),
    Kind("bytes that are text", _table(catalog_content=pa.array([b"a", b"b", b"c"])), {"text": ["a", "b", "c"]}),
    Kind("bytes that are no text", _table(catalog_content=pa.array([b"a", b"\xff", b"c"])),
         error="column 'catalog_content' holds binary, which can't be read as text"),
    Kind("days and times", _table(seen=pa.array([0, 86400, None], pa.timestamp("s"))), {"numeric:seen (age in days)": [1.0, 0.0, None]}),
    Kind("truth values in columns", _table(new=pa.array([True, False, None])), {"numeric:new": [1.0, 0.0, None]}),
    Kind("lists of words", _table(tags=pa.array([["red", "wool"], [], None])), {"text": ["t0\ntags: red, wool", "t1", "t2"]},
         notes=("column 'tags' holds lists: their words are joined to the text",)),
    Kind("lists of numbers", _table(vector=pa.array([[0.5], [1.5], []])), {"text": ["t0", "t1", "t2"]},
         notes=("column 'vector' is left out: it holds list<element: double> (name it with --text-column to join",)),
    Kind("lists of numbers that are asked for", _table(vector=pa.array([[0.5, 0.0], [1.5], []])),
         {"text": ["t0\nvector: 0.5, 0.0", "t1\nvector: 1.5", "t2"]}, given=ColumnConfig(more_text=("vector",))),
    Kind("maps", _table(size=pa.array([[("w", 1)], [], None], pa.map_(pa.string(), pa.int64()))),
         {"text": ["t0\nsize: w: 1", "t1", "t2"]}, given=ColumnConfig(more_text=("size",))),
    *(
        Kind(f"words in a {kind}", _table(tags=pa.array([["red", "wool"], ["silk", "blue"], None], kind)),
             {"text": ["t0\ntags: red, wool", "t1\ntags: silk, blue", "t2"]})
        for kind in (pa.list_(pa.string(), 2), pa.list_view(pa.string()), pa.list_(pa.dictionary(pa.int32(), pa.string())))
    ),
    Kind("bytes in columns", _table(raw=pa.array([b"a", b"b", b"b"])), notes=("'raw' is left out: it holds binary (name it with --categorical",)),
    Kind("prices in a struct", _table(price=pa.array([{"amount": 5, "currency": "EUR"}] * 3)),
         error=r"'price' holds struct<.*>, which can't be read as text: name one of its fields: 'price.amount', 'price.currency'"),
    Kind("the same, named", _table(price=pa.array([{"amount": 5, "currency": "EUR"}] * 3)),
         {"price": [5.0] * 3, "numeric:price.amount": MISSING, "categorical:price.currency": ["EUR"] * 3}, given=ColumnConfig(price="price.amount")),
    Kind("several currencies in a struct", _table(price=pa.array([{"amount": 5, "currency": one} for one in ("EUR", "USD", "EUR")])),
         given=ColumnConfig(price="price.amount"), error=r"'price.currency' holds 2 currencies .€ in 2 rows, \$ in 1 rows."),
    Kind("ids in lists", _table(sample_id=pa.array([["a"], ["b"], ["c"]])), error="'sample_id' holds list<.*: write one value in each row"),
    Kind("texts in lists and structs", _table(catalog_content=pa.array([["a", "b"], [], ["c"]]), more=pa.array([{"about": "x"}, None, {"about": "z"}])),
         {"text": ["a, b\nmore.about: x", "", "c\nmore.about: z"]}, given=ColumnConfig(more_text=("more.about",))),
    Kind("structs", _table(size=pa.array([{"w": 1, "more": {"colour": "red"}}, {"w": 2, "more": {"colour": "red"}}, None])),
         {"numeric:size.w": [1.0, 2.0, None], "categorical:size.more.colour": ["red", "red", None]}),
    Kind("a struct beside a column of its field's name", _table(**{"s": pa.array([{"w": 1}] * 3), "s.w": pa.array([1, 2, 3])}),
         error="has a column 's.w' and a struct with that field: rename one"),
    Kind("times of a zone that is not known", _table(seen=pa.array([0, 86400, None], pa.timestamp("s", tz="Mars/Phobos"))),
         {"numeric:seen (age in days)": [1.0, 0.0, None]}, notes=("'Mars/Phobos': its days are those of UTC",)),
    Kind("such times in a struct", _table(s=pa.StructArray.from_arrays([pa.array([0, 86400, None], pa.timestamp("s", tz="Mars/Phobos"))], ["t"])),
         {"numeric:s.t (age in days)": [1.0, 0.0, None]}),
    Kind("days that stand for none", _table(seen=pa.array([0, 86400, 253402214400], pa.timestamp("s"))), {"numeric:seen (age in days)": [1.0, 0.0, None]}),
    Kind("a column of one type for nothing", _table(empty=pa.nulls(3)), notes=("'empty' is left out: it is empty",)),
    Kind("durations", _table(lead=pa.array([1, 2, 3], pa.duration("s"))), notes=("'lead' is left out: it holds duration[s] (name it with --numeric to keep it)",)),
    Kind("durations that are asked for", _table(lead=pa.array([1, 2, 3], pa.duration("s"))), {"numeric:lead": [1.0, 2.0, 3.0]},
         given=ColumnConfig(numeric=("lead",))),
]  # fmt: skip

NOT_BY_17 = ("views of strings", "list_view", "fixed_size_list")

KINDS = [*PRICES, *IDS, *ROWS, *NUMBERS, *OTHERS, *PARQUET]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_file_is_read_rightly_or_refused_with_what_to_do(tmp_path, kind):
    if any(mark in kind.name for mark in NOT_BY_17) and int(pa.__version__.partition(".")[0]) < 18:
        pytest.skip("PyArrow 17 does not write such columns, or not those that it reads")
    workspace = Workspace(tmp_path / "w")
    paths = {"train": _written(tmp_path, "train", kind.train)}
    if kind.test is not None:
        paths["test"] = _written(tmp_path, "test", kind.test)
    if kind.error is not None:
        with pytest.raises(CatalogError, match=kind.error):
            ingest(workspace, paths["train"], paths.get("test"), columns=kind.given)
        assert not workspace.exists("catalog")
        return
    report = ingest(workspace, paths["train"], paths.get("test"), columns=kind.given)
    for split, right in (("train", kind.right), ("test", kind.right_test)):
        for name, values in right.items():
            table = read_split(workspace, split)
            if values is MISSING:
                assert name not in table.column_names
            else:
                assert table[name].to_pylist() == [_nearly(value) for value in values]
    if kind.right_holdout is not None:
        known = workspace.exists("catalog/holdout.parquet")
        held = workspace.read_table("catalog/holdout.parquet")["price"].to_pylist() if known else []
        assert held == kind.right_holdout
    for said in kind.notes:
        assert any(said in note for note in report.notes), (said, report.notes)
    assert report.splits["train"].rejected == kind.rejected
    assert ingest(workspace, paths["train"], paths.get("test")).is_unchanged


def _written(folder: Path, name: str, content: Any) -> str:
    path = folder / f"{name}.csv"
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        pq.write_table(content, path)
    return str(path)


def _nearly(value: Any) -> Any:
    return pytest.approx(value) if isinstance(value, float) else value


def test_a_category_that_train_lacks_is_taken_as_it_is_where_train_has_missing_ones_too(tmp_path):
    workspace, shades = Workspace(str(tmp_path / "ws")), ["red", "blue", "", "true"]
    lines = [f"{at},towel {at % 7},{10 + at},{shades[at % 4]}" for at in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(["sample_id,catalog_content,price,shade", *lines]) + "\n")
    (tmp_path / "test.csv").write_text(
        "sample_id,catalog_content,shade\na,towel,green\nb,towel,\nc,towel,True\nd,towel,red\n"
    )
    ingest(workspace, tmp_path / "train.csv", tmp_path / "test.csv", None)
    found = read_split(workspace, "test", ["categorical:shade"])["categorical:shade"].to_pylist()
    assert found == ["green", None, "true", "red"]
