"""Figures as people read them in a terminal."""

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def print_figures(title: str, figures: Mapping[str, Any], as_json: Mapping[str, Any] | None = None) -> None:
    """Print one row per figure: its name with spaces, its value with thousands separators.

    Args:
        title: above the rows.
        figures: what to show.
        as_json: printed as JSON instead of the rows.
    """
    if as_json is not None:
        typer.echo(json.dumps(as_json, indent=2, ensure_ascii=False))
        return
    table = Table("", "", title=title, show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), _readable(value))
    Console().print(table)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(part) for part in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
