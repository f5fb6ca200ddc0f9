"""What stands for a missing value in text."""

import polars as pl

#: As pandas, R, SQL and spreadsheets write them; the spelling counts, since "Nan" and "none" may be titles.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NULL", "null", "Null", "None", "\\N")


def without_missing(text: pl.Series) -> pl.Series:
    """Text without white space around it, null where it stands for a missing value."""
    text = text.str.strip_chars()
    frame = pl.DataFrame({"text": text})
    kept = pl.when(~pl.col("text").is_in(MISSING)).then("text")
    return frame.select(kept).to_series().alias(text.name)
