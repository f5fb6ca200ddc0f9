"""Commands that print help and errors as a terminal needs them: paragraphs without line breaks, options as flags."""

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

from lorarec.errors import LorarecError

_VALUE = re.compile(r"""\b(\w+)=(\w+|"[^"]*"|'[^']*')""")
_NAME = re.compile(r"""(?<![\w/.'"-])(?:(?<=option )\w+|[a-z]+(?:_[a-z]+)+)(?![\w/'"]|\.\w)""")


class _VerbMixin:
    """Help and error messages of `Verb` and `VerbGroup`."""

    params: list[Any]

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        # A line break in a paragraph would stay where it is in the docstring; indented lines are examples.
        super().__init__(*args, help=help and re.sub(r"(?<=\S)\n(?=\S)", " ", help), **kwargs)  # type: ignore[call-arg]

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            LorarecError: The library raised it; the message has flags in place of names of options.
        """
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except LorarecError as error:
            flags = {option.name: option.opts[0] for option in self.params if option.opts[0].startswith("--")}
            raise LorarecError(with_flags(str(error), flags)) from error


class Verb(_VerbMixin, TyperCommand):
    """A command whose help fills the lines of the terminal and whose error messages name its options by their flags."""


class VerbGroup(_VerbMixin, TyperGroup):
    """A group of commands that is a command itself, with the help and the messages of a `Verb`."""


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace names of options in a message by flags.

    Names are recognised in `name=value`, in `option name`, and wherever they have an underscore.

    Example: with_flags("pass overwrite=True", {"overwrite": "--overwrite"}) returns "pass --overwrite".

    Args:
        flags: The flag of each option by name, such as `--learning-rate` of learning_rate.
    """

    def assigned(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if value == "False":
            return flags.get(f"no_{name}", f"--no-{name.replace('_', '-')}" if name in flags else match[0])
        if name not in flags:
            return match[0]
        return flags[name] if value == "True" else f"{flags[name]} " + re.sub(r'^"([\w-]+)"$', r"\1", value)

    return _NAME.sub(lambda match: flags.get(match[0], match[0]), _VALUE.sub(assigned, message))
