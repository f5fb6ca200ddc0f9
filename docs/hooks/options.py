"""A hook of mkdocs that writes the tables of options from the option dataclasses and from the command line.

A line such as `<!-- options: lorarec.training.TrainingConfig -->` becomes a table of the fields with their help texts,
and `<!-- settings of lorarec serve -->` one of the flags, environment variables and keys of that command.
"""

import re
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any

from typer.main import get_group

from lorarec.cli.entry import app
from lorarec.cli.settings import named_options, variable

MARK = re.compile(r"^<!-- options: ([\w.]+) -->$", re.MULTILINE)
SETTINGS = "<!-- settings of lorarec serve -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by tables."""
    markdown = MARK.sub(lambda found: option_table(found[1]), markdown)
    return markdown.replace(SETTINGS, settings_table()) if SETTINGS in markdown else markdown


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


def settings_table() -> str:
    """Return the options of `lorarec serve` as a Markdown table of flags, environment variables and keys of a file."""
    group: Any = get_group(app)
    context = group.make_context("lorarec", [], resilient_parsing=True)
    _, command, _ = group.resolve_command(context, ["serve"])
    options = named_options(command.make_context("serve", [], resilient_parsing=True))
    rows = ["| Option | Variable | Key | Default | Meaning |", "|---|---|---|---|---|"]
    for name, option in options.items():
        flag = option.opts[0] if option.opts[0].startswith("-") else name.upper()
        default = "" if option.default is None else f"`{option.default!r}`"
        meaning = option.help.replace("|", "\\|")
        rows.append(f"| `{flag}` | `{variable(name)}` | `{name}` | {default} | {meaning} |")
    return "\n".join(rows)
