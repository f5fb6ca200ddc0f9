"""Readers of published and private data; each returns a `Source`."""

from lorarec.data.sources.amazon import read_amazon
from lorarec.data.sources.movielens import read_movielens
from lorarec.data.sources.table import read_table

__all__ = ["read_amazon", "read_movielens", "read_table"]
