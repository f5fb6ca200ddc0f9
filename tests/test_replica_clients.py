"""`benchmarks/replica_clients.py`: which outcomes of `serve_chaos.py` and `serve_replicas.py` count as faults."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
CASE = (("i1", "i2"), ("i3", "i4"), (("v1", 1.0),))
SCORES = np.array([0.5, -1.25])

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="benchmarks/ is not here")


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("replica_clients")


@pytest.mark.parametrize(
    ("changed", "stored", "is_right", "line"),
    [
        (
            {},
            ["0-0", "0-1"],
            True,
            "0 wrong (largest difference 1e-04); 2 events acknowledged: 0 lost, 0 stored twice; 0 ",
        ),
        ({}, ["0-0", "0-1", "0-2"], True, "0 lost, 0 stored twice"),  # an event that was stored, but not acknowledged
        (
            {"answers": {CASE: [SCORES, SCORES + np.array([0, 0.01])]}},
            ["0-0", "0-1"],
            False,
            "1 wrong (largest difference 1e-02)",
        ),
        ({"answers": {CASE: [SCORES[::-1]]}}, ["0-0", "0-1"], False, "1 wrong"),
        ({"answers": {CASE: [SCORES * np.nan]}}, ["0-0", "0-1"], False, "1 wrong"),
        ({}, ["0-0"], False, "1 lost, 0 stored twice"),
        ({}, ["0-0", "0-1", "0-1"], False, "0 lost, 1 stored twice"),
        ({}, ["0-1", "0-1"], False, "1 lost, 1 stored twice"),
        ({"statuses": {("rank", "no answer"): 2}}, ["0-0", "0-1"], False, "2 requests without an answer"),
        ({"statuses": {("event", "503"): 9}}, ["0-0", "0-1"], True, "0 requests without an answer"),
    ],
)
def test_wrong_scores_lost_and_repeated_events_and_missing_answers_are_reported(
    clients: ModuleType,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    stored: list[str],
    is_right: bool,
    line: str,
) -> None:
    answers = {CASE: [SCORES, SCORES + 1e-4]}
    outcomes = clients.Outcomes(**{"answers": answers, "acknowledged": {"0-0", "0-1"}, "asked": 2, **changed})
    shop = SimpleNamespace(expected=lambda cases: dict.fromkeys(cases, SCORES))
    assert clients.report(outcomes, shop, stored) is is_right
    assert line in capsys.readouterr().out.splitlines()[-1]
