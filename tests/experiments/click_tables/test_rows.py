"""The rows of RecLoRA's tables."""

from lorarec.experiments.click_tables.rows import ANALYSES, LORAS, MAIN, ClickRow, analysis_rows, main_row
from lorarec.personal import PersonalizationConfig


def test_main_rows_are_named_by_kind_and_seed() -> None:
    rows = [main_row(kind, 7) for kind in MAIN]
    assert [row.name for row in rows] == [f"{kind}-seed7" for kind in MAIN]
    assert {row.name for row in rows if row.kind == "lora"} == {f"{kind}-seed7" for kind in LORAS}


def test_blended_rows_keep_seed_and_point() -> None:
    assert main_row("reclora", 3).blended_name == "reclora-blended-seed3"
    assert ClickRow("size-4", "lora", 3).blended_name == "size-4-blended"


def test_analyses_share_the_rows_of_the_main_table() -> None:
    default = PersonalizationConfig(samples=2048)
    found = analysis_rows(ANALYSES, 5, default)
    own, shared = main_row("reclora", 5), main_row("rella", 5)
    assert all(own in points.values() for points in found.values())
    assert list(found["size"]) == ["1", "2", "4", "8", "16"]
    assert found["size"]["1"] == found["left out"]["personal LoRA"] == shared
    assert found["size"]["8"] == own
    assert list(found["samples"]) == ["512", "1024", "2048"]
    assert found["text-history"]["5"].changed == {"max_history": 5}
    assert found["left out"]["Few2Many"].few
    names = [row.name for points in found.values() for row in points.values()]
    assert len(set(names)) == len({row.name: row for points in found.values() for row in points.values()})


def test_another_default_is_the_point_of_its_own_row() -> None:
    points = analysis_rows(["size"], 1, PersonalizationConfig(num_meta_loras=3))["size"]
    assert list(points) == ["1", "2", "3", "4", "8", "16"]
    assert points["3"] == main_row("reclora", 1)
    assert analysis_rows(["size"], 1, PersonalizationConfig(num_meta_loras=1))["size"]["1"] == main_row("reclora", 1)
