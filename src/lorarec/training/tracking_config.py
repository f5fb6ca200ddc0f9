"""Options of experiment tracking, which `train`, `personalize`, `train_user_router` and experiments share."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from lorarec.errors import LorarecError
from lorarec.options import document_options, option

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
#: Values of `report_to` that are no trackers and stand alone.
AUTO, NONE = "auto", "none"
TRACKING = "Tracking"
#: What pip installs for a tracker. The dependencies of Trackio (Gradio) do not go together with those of the others.
_REQUIREMENTS = {"trackio": "trackio"} | {name: f"'lorarec[{name}]'" for name in TRACKERS if name != "trackio"}


@document_options
@dataclass(frozen=True)
class TrackingConfig:
    """Options of experiment tracking: the trackers that get the figures of a run, and the name of the run there.

    `report_to` has the meaning that it has in transformers' `TrainingArguments`: a name, several names separated by
    commas or as a sequence, or `none`. The default `auto` writes TensorBoard's files into the output folder if
    TensorBoard is installed, and nothing otherwise; it never sends anything to another machine. None of these options
    changes what is trained, so an interrupted run can be resumed with others.

    Raises:
        LorarecError: If a tracker is unknown or not installed, or `auto` or `none` is combined with others.

    Examples:
        >>> from lorarec import TrackingConfig
        >>> TrackingConfig(report_to="tensorboard", run_name="first").trackers
        ('tensorboard',)
        >>> TrackingConfig(report_to="none").trackers
        ()
    """

    report_to: str | Sequence[str] = option(
        AUTO,
        f"Trackers of the run, separated by commas: {', '.join(TRACKERS)}, `none`, or `auto`, which is TensorBoard if "
        "it is installed.",
        TRACKING,
    )
    project: str | None = option(
        None,
        "Project of the run (experiment in MLflow); if None, that of the tracker's environment variable, or `lorarec`.",
        TRACKING,
    )
    run_name: str | None = option(None, "Name of the run; the name of the output folder if None.", TRACKING)

    def __post_init__(self) -> None:
        names = self._names()
        for name in names:
            if name not in (AUTO, NONE, *TRACKERS):
                known = ", ".join((AUTO, NONE, *TRACKERS))
                raise LorarecError(f"option report_to has no tracker {name!r}: choose from {known}")
        alone = {AUTO, NONE} & {*names}
        if alone and len(names) > 1:
            raise LorarecError(f"option report_to has {alone.pop()!r} beside other trackers: give one or the other")
        for name in (each for each in names if each in _REQUIREMENTS and not is_installed(each)):
            raise LorarecError(f"tracker {name} is not installed: pip install {_REQUIREMENTS[name]}")

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers that get the run."""
        names = self._names()
        if names == (AUTO,):
            return ("tensorboard",) if is_installed("tensorboard") else ()
        return () if names == (NONE,) else names

    def _names(self) -> tuple[str, ...]:
        given = self.report_to.split(",") if isinstance(self.report_to, str) else self.report_to
        return tuple(dict.fromkeys(str(name).strip() for name in given)) or (NONE,)


def is_installed(package: str) -> bool:
    """Return whether a package is installed; a mere folder of its name, as wandb writes one, is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None
