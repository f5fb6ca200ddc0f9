"""A hook of mkdocs that writes the tables of options from the option dataclasses.

A line such as `<!-- options: lorarec.training.TrainingConfig -->` becomes a table of the fields with their help texts.
"""

import re
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any

MARK = re.compile(r"^<!-- options: ([\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by tables."""
    return MARK.sub(lambda found: option_table(found[1]), markdown)


def option_table(path: str) -> str:
    """Return the options of a dataclass as a Markdown table, under the panels of the command line.

    Args:
        path: Where the dataclass is, such as `lorarec.training.TrainingConfig`.
    """
    module, _, name = path.rpartition(".")
    options = fields(getattr(import_module(module), name))
    rows = ["| Option | Default | Meaning | Group |", "|---|---|---|---|"]
    for each in sorted(options, key=lambda each: each.metadata["panel"] is not None):
        default = "required" if each.default is MISSING else f"`{each.default!r}`"
        rows.append(f"| `{each.name}` | {default} | {each.metadata['help']} | {each.metadata['panel'] or ''} |")
    return "\n".join(rows)
