"""Readers of published data sets, tables, databases and data frames; each returns a `RawLog`."""

from lorarec.data.sources.amazon import read_amazon
from lorarec.data.sources.movielens import read_movielens
from lorarec.data.sources.sql import read_query
from lorarec.data.sources.table import read_table

__all__ = ["read_amazon", "read_movielens", "read_query", "read_table"]
