"""Writing of matplotlib figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from lorarec.io.artefacts import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises:
        LorarecError: The disk cannot be written to.
    """
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
