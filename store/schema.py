"""Every column that lies on disk: name, Arrow type, unit."""

import pyarrow as pa

# catalog/{train,test}.parquet ---------------------------------------------------------------------
# `sample_id` is int64 or string, of one type in both, and unique in its file: train and test may have the same ones, of
# other rows. `price` only in train.
NUMBERS_TYPE = pa.list_(pa.struct([("value", pa.float64()), ("word", pa.string())]))
CATALOG_COLUMNS: dict[str, pa.DataType] = {
    "text": pa.string(),  # the catalogue text as given, "" where missing
    "image_link": pa.string(),  # as given, null where missing
    "image": pa.string(),  # key into images/links.parquet; null: the row has no image
    "name": pa.string(),  # item name
    "bullets": pa.list_(pa.string()),
    "description": pa.string(),
    "value": pa.float64(),  # the `Value:` line, in `unit`; null where missing
    "unit": pa.string(),  # the `Unit:` line, lower case, normalised spelling ("fl oz", "ounce", "count")
    "pack_count": pa.float64(),  # items in the pack, 1 where none is written
    "quantity": pa.float64(),  # total over the pack, in `quantity_unit`
    "quantity_unit": pa.string(),  # "g", "ml", "count" or null
    "numbers": NUMBERS_TYPE,  # other numbers with their word: 15.6 "inch", 4 "bedrooms"
}
# References as in `image` of a row's further images, in order; the column is there only where a row has some.
FURTHER_IMAGES = pa.field("further_images", pa.list_(pa.string()))
# Further columns of the user's file are kept under these prefixes.
NUMERIC_PREFIX = "numeric:"  # float64, null where missing
CATEGORICAL_PREFIX = "categorical:"  # string, null where missing
# Columns that say something of the rows and are no features.
OWN_GROUP = pa.field("given:group", pa.string())  # rows of one value share a fold; null: the row alone
TIME = pa.field("given:time", pa.float64())  # of the price, in days, or the column's own number
WEIGHT = pa.field("given:weight", pa.float64())  # of the row in fits and scores, > 0

PRICE = pa.field("price", pa.float64(), nullable=False)  # currency of the catalogue, > 0

# catalog/holdout.parquet --------------------------------------------------------------------------
# `sample_id` as in the test catalogue; rows whose price the test file gave. No model is fitted on them.
HOLDOUT_PRICE = pa.field("price", pa.float64(), nullable=False)  # currency of the catalogue, > 0

# catalog/rejected.parquet -------------------------------------------------------------------------
REJECTED = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),  # line of the file where the row starts, header = 1; row number in Parquet
        ("sample_id", pa.string()),  # as given
        ("reason", pa.string()),
    ]
)

# images/links.parquet -----------------------------------------------------------------------------
LINKS = pa.schema(
    [
        (
            "link",
            pa.string(),
        ),  # URL, "file:<name>" of an image in a folder, or "data:<sha256>" of one in the table
        ("sha256", pa.string()),  # hex of the bytes, null where there are none
        ("reason", pa.string()),  # why there are none, null where there are
        ("tries", pa.int32()),
        ("http_status", pa.int32()),  # null for a file
        ("n_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),  # of the file it was read from, null for a URL
        ("etag", pa.string()),  # as the server gave them, for conditional requests; null for a file
        ("last_modified", pa.string()),
    ]
)

# vectors/<encoder>-<fingerprint>/ -----------------------------------------------------------------
KEY_BYTES = 16
KEY_TYPE = pa.binary(KEY_BYTES)
FAILURES = pa.schema(
    [
        ("key", KEY_TYPE),
        ("stage", pa.string()),  # "read", "decode", "encode"
        ("reason", pa.string()),
    ]
)


def shard_schema(dim: int) -> pa.Schema:
    """Columns of a shard: `key` (16 bytes) and `vector` (dim little-endian float16, 2*dim bytes)."""
    return pa.schema(
        [pa.field("key", KEY_TYPE, nullable=False), pa.field("vector", pa.binary(2 * dim), nullable=False)]
    )


# folds.parquet ------------------------------------------------------------------------------------
# `sample_id` as in the catalogue, sorted; `fold` 0..k-1; `group` the same for rows that must stay together.
FOLD = pa.field("fold", pa.int16(), nullable=False)
GROUP = pa.field("group", pa.int64(), nullable=False)

# predictions/<head>-<hash>/{oof,test}.parquet -----------------------------------------------------
LOG_PRICE = pa.field("log_price", pa.float64(), nullable=False)

# cleaning.parquet ---------------------------------------------------------------------------------
# `sample_id` first, as in the catalogue; a row is there once for each finding that it is part of.
CLEANING: tuple[pa.Field, ...] = (
    pa.field("split", pa.string(), nullable=False),  # "train" or "test"; a test row is never changed
    pa.field("finding", pa.string(), nullable=False),
    pa.field("group", pa.int64()),  # rows of one finding that belong together; null: the row alone
    pa.field("policy", pa.string(), nullable=False),  # as configured for the finding
    pa.field("decision", pa.string(), nullable=False),  # for a fit on all rows: keep, drop, median or weight
    pa.field("reason", pa.string(), nullable=False),
)

# images/hashes.parquet ----------------------------------------------------------------------------
PERCEPTUAL_BYTES = 224  # 32 of shape, 192 of colour, see store/catalog/clean/images.py
PERCEPTUAL_HASHES = pa.schema(
    [
        ("sha256", pa.string()),
        ("hash", pa.binary(PERCEPTUAL_BYTES)),  # null where there is none
        ("reason", pa.string()),  # why there is none
    ]
)

# finetune/<run>/fold-<k>/history.parquet ----------------------------------------------------------
TUNING_HISTORY = pa.schema(
    [
        ("fold", pa.int16()),
        ("epoch", pa.int32()),  # 1-based; 0: the warm-up
        ("step", pa.int64()),  # of the fold's run, 1-based
        ("loss", pa.float64()),
        ("smape", pa.float64()),  # of the step's rows before it, percent
        ("rate", pa.float64()),  # of the head
        ("rows_per_second", pa.float64()),
        ("inner_smape", pa.float64()),  # on the rows set aside, at the end of an epoch; null otherwise
    ]
)
