"""Text that represents a missing value."""

import polars as pl

#: As pandas, R, SQL and spreadsheets write them. Case matters, since "Nan" and "none" may be titles.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NULL", "null", "Null", "None", "\\N")


def without_missing(text: pl.Series) -> pl.Series:
    """Strip white space from text and replace what represents a missing value by null."""
    text = text.str.strip_chars()
    frame = pl.DataFrame({"text": text})
    kept = pl.when(~pl.col("text").is_in(MISSING)).then("text")
    return frame.select(kept).to_series().alias(text.name)
