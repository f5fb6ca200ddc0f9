"""Writing of matplotlib figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from lorarec.errors import LorarecError
from lorarec.io.artefacts import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def refuse_other_suffix(path: str | Path) -> None:
    """Refuse the path of a figure that does not end in .png.

    Raises:
        LorarecError: It does not.
    """
    if Path(path).suffix.lower() != ".png":
        raise LorarecError(f"cannot write {path}: plots are PNG files: give a path that ends in .png")


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Dollar signs in names of datasets and adapters are drawn as they are; matplotlib reads formulas between them.

    Raises:
        LorarecError: The disk cannot be written to, or the path has the suffix of another format.
    """
    from matplotlib.text import Text

    refuse_other_suffix(path)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and r"\mathdefault" not in text.get_text():  # which logarithmic axes write
            text.set_parse_math(False)
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
