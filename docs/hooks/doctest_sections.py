"""An extension of griffe that makes a section `Examples` of the doctests in a docstring, so that they become code."""

import re
from textwrap import indent
from typing import Any

import griffe


class DoctestSections(griffe.Extension):
    """Gives the doctests of each docstring the heading that griffe's parser of Google's style knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object once it has been read."""
        if obj.docstring:
            obj.docstring.value = with_section(obj.docstring.value)


def with_section(text: str) -> str:
    """Return a docstring whose doctests are in a section `Examples`."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    before, found, after = text.partition("\n>>> ")
    return f"{before}\nExamples:\n{indent('>>> ' + after, '    ')}" if found else text
