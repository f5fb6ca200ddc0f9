import json

import pytest

from lorarec.errors import LorarecError
from lorarec.lora import effect_of_prompts, weights_by_setting


def test_weights_by_setting(tiny_backbone, adapters, builder, make_prompts, tmp_path):
    prompts = make_prompts(builder)
    settings = {"warm": prompts[:3], "new-item": prompts[3:]}
    found = weights_by_setting(tiny_backbone, adapters, settings, builder, tmp_path / "out")
    assert list(found) == ["warm", "new-item"]
    assert all(sum(each.weights) == pytest.approx(1) for each in found.values())
    assert json.loads((tmp_path / "out" / "weights_by_setting.json").read_text())["settings"].keys() == found.keys()
    assert (tmp_path / "out" / "weights_by_setting.png").stat().st_size > 3000


def test_effect_of_prompts(tiny_backbone, adapters, builder, make_prompts, tmp_path):
    prompts = make_prompts(builder)
    evaluation = (prompts, [0] * len(prompts))
    options = {"counts": (2, 4, 100), "seeds": (3, 4)}
    runs = effect_of_prompts(tiny_backbone, adapters, prompts, evaluation, builder, tmp_path / "out", **options)
    assert [count for count, _ in runs] == [2, 2, 4, 4]
    assert all(0 <= mixture.metrics["ndcg@1"] <= mixture.metrics["ndcg@3"] <= 1 for _, mixture in runs)
    assert (tmp_path / "out" / "effect_of_prompts.png").stat().st_size > 3000
    again = effect_of_prompts(tiny_backbone, adapters, prompts, evaluation, builder, tmp_path / "again", **options)
    assert again == runs


def test_weights_do_not_depend_on_labels(tiny_backbone, adapters, builder, make_prompts, tmp_path):
    prompts = make_prompts(builder)
    found = []
    for target in (0, 1):
        evaluation = (prompts, [target] * len(prompts))
        out = tmp_path / str(target)
        runs = effect_of_prompts(tiny_backbone, adapters, prompts, evaluation, builder, out, counts=(4,), seeds=(0,))
        found.append(runs[0][1].weights)
    assert found[0] == found[1]


def test_too_few_prompts(tiny_backbone, adapters, builder, make_prompts, tmp_path):
    prompts = make_prompts(builder)
    with pytest.raises(LorarecError, match="fewer than the smallest count, 10"):
        effect_of_prompts(tiny_backbone, adapters, prompts, (prompts, [0] * 6), builder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
