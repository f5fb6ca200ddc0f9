"""The command line in this process."""

from typing import Any

from typer.testing import CliRunner, Result

from lorarec.cli.entry import app


def run(*words: object, **options: Any) -> Result:
    """Run a command line and return its result.

    Raises:
        Exception: As the command raises it.
    """
    result = CliRunner().invoke(app, [str(word) for word in words], **options)
    if result.exception:
        raise result.exception
    return result
