"""The Gradio app of `examples/space` answers as the library does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lorarec import Backbone, Dataset, Index, Ranker
from lorarec.ranking import recommend_next
from tests.factories import QUICK, dataset_of, numbered_titles

SPACE = Path(__file__).parents[1] / "examples" / "space"


def test_the_card_has_the_header_of_a_space() -> None:
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio"
    assert (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60
    required = dict(re.findall(r"^(\w+)>=(\S+)$", (SPACE / "requirements.txt").read_text(), re.MULTILINE))
    assert header["sdk_version"].split(".")[0] == required["gradio"]


def load_app(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ModuleType:
    """Import the app under the variables of a Space."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


def test_the_app_answers_as_the_library(backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    client = pytest.importorskip("gradio_client")
    from lorarec import TrainingConfig, leave_one_out, train

    rows = [(f"u{user}", f"i{(user * 7 + k * 3) % 30}", k) for user in range(12) for k in range(5)]
    shop = dataset_of(rows, numbered_titles(30, digits=1), "shop").save(tmp_path / "shop")
    backbone, split = Backbone.from_pretrained(backbone_folder), leave_one_out(shop, new_items=0, negatives=5)
    for name, evidence in (("plain", False), ("counted", True)):
        train(backbone, [(shop, split)], tmp_path / name, TrainingConfig(**QUICK | {"evidence": evidence}))
    adapters = [str(tmp_path / name) for name in ("plain", "counted")]
    app = load_app(
        monkeypatch, DATASET=str(tmp_path / "shop"), ADAPTERS=", ".join(adapters), BACKBONE=str(backbone_folder)
    )
    page = app.page()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, show_error=True)
    try:
        browser = client.Client(address, verbose=False)
        dataset, history = Dataset.load(tmp_path / "shop"), ["i3", "i6"]
        for adapter in (*adapters, app.NO_ADAPTER):
            found = browser.predict(history, adapter, api_name="/recommend")["data"]
            with Ranker(backbone, None if adapter == app.NO_ADAPTER else adapter) as ranker:
                evidence = app.make_evidence(ranker.prompt, dataset)
                items = recommend_next(ranker, Index.build(dataset), dataset.titles, history, 10, evidence=evidence)
                ranked = ranker.rank(["thing 3"], ["thing 4", "thing 5"])
            assert [row[:2] for row in found] == [[item.title, round(item.probability, 4)] for item in items]
            answer = browser.predict("thing 3\n\n", " thing 4\nthing 5", adapter, api_name="/rank")["data"]
            assert answer == [[each.title, round(each.score, 4)] for each in ranked]
        with pytest.raises(Exception, match="at least one candidate title"):
            browser.predict("thing 3", "", adapters[0], api_name="/rank")
    finally:
        page.close()
