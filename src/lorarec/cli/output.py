"""Values as a table in the terminal, or as JSON."""

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_values(title: str, values: Mapping[str, Any], as_json: Mapping[str, Any] | None = None) -> None:
    """Print a table of one row per value: its name with spaces, and the value with thousands separators.

    Args:
        title: Title of the table.
        values: Values by name.
        as_json: Value that is printed as JSON in place of the table.
    """
    if as_json is not None:
        typer.echo(json.dumps(as_json, indent=2, ensure_ascii=False))
        return
    # Text keeps square brackets in names and paths from being read as markup.
    table = Table("", "", title=Text(title), show_header=False)
    for name, value in values.items():
        table.add_row(Text(name.replace("_", " ")), Text(_readable(value)))
    Console().print(table)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(part) for part in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
