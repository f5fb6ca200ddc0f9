"""A hook of mkdocs that writes the page of the command line from the typer application itself."""

from typing import Any

from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_group

from lorarec.cli.entry import app

INTRODUCTION = """# Command line

This page is generated from the application itself: it is what `lorarec COMMAND --help` prints. Figures are printed as
JSON with `--json` where a command has it. The exit code is 0 on success, 2 on bad input, with one line on standard
error, and 130 after Ctrl+C.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated page `reference/cli.md` to the files of the site."""
    files.append(File.generated(config, "reference/cli.md", content=command_line_page()))
    return files


def command_line_page() -> str:
    """Return the Markdown of all commands, one section each."""
    group: Any = get_group(app)
    context = group.make_context("lorarec", [], resilient_parsing=True)
    sections = []
    for verb in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [verb])  # loads the command, which is a placeholder until then
        own = command.make_context(verb, [], resilient_parsing=True)
        sections.append(get_docs_for_click(obj=command, ctx=own, indent=1, call_prefix="lorarec", name=verb))
    return "\n".join([INTRODUCTION, *sections])
