"""Runs in experiment trackers: one for each finished row of a table, and one for the table's pictures."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorarec.io import file_fingerprint, read_json, remove_folder, write_json
from lorarec.training import TrackingConfig, tracked_run

#: Folder of the trackers' local files, with a folder for each run.
TRACKING = "tracking"
#: Name of the file that says which trackers have a run, and with what contents.
REPORTED = "reported.json"


def report_run(
    tracking: TrackingConfig,
    out: Path,
    name: str,
    shown: Mapping[str, Any],
    figures: Mapping[str, float],
    pictures: Sequence[Path] = (),
) -> None:
    """Write a finished run into every tracker that does not have it yet.

    What the trackers have is recorded in `out`/tracking/`name`. If the run has changed, a new one is written.

    Args:
        tracking: Options; the name of the run is `name`.
        out: Folder of the experiment.
        name: Name of the run.
        shown: Options that trackers show as the configuration of the run.
        figures: Figures by name, as `TrackedRun.log` takes them.
        pictures: PNG files.

    Raises:
        LorarecError: If a tracker cannot start the run.
    """
    folder = out / TRACKING / name
    shown = {"experiment": out.resolve().name, **shown}
    contents = [shown, dict(figures), {path.name: file_fingerprint(path) for path in pictures}]
    key = hashlib.sha256(json.dumps(contents, sort_keys=True, default=str).encode()).hexdigest()[:16]
    reported: dict[str, str] = read_json(folder / REPORTED) if (folder / REPORTED).is_file() else {}
    if any(each != key for each in reported.values()):
        remove_folder(folder)
        reported = {}
    missing = [tracker for tracker in tracking.trackers if tracker not in reported]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tracked_run(replace(tracking, report_to=missing, run_name=name), name, folder, shown) as run:
        run.log(figures)
        run.log_pictures(pictures)
    write_json(folder / REPORTED, reported | dict.fromkeys(missing, key))
