"""The user chooser: who is told apart, what stays as it is, what it never sees."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from lorarec.adapters import AdapterBank, FACTORS, install
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.mixing import CasePrompts, mix
from lorarec.personal import Chosen, PersonalLora, choose_by_user, export_user
from lorarec.personal.score import user_scores
from lorarec.personal.split_users import fit_on_training_part, split_users, training_part
from lorarec.personal.users import user_weights
from lorarec.scoring import score
from lorarec.training import train

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-2}


def colours(users: range, kind: int | None = None) -> Dataset:
    """Users who choose among 40 red things (even users, or kind 0) or 40 blue ones; all of them rated."""
    rng = np.random.default_rng(0)
    rows = []
    for user in users:
        own = user % 2 if kind is None else kind
        for at, thing in enumerate(rng.choice(40, 4 + user % 5, replace=False)):
            rows.append((f"u{user:03}", f"i{own}{thing:02}", 100 * at + user, float(rng.integers(1, 6))))
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    things = ["lamp", "chair", "table", "brush", "game"]
    titles = [
        {"item_id": f"i{own}{thing:02}", "title": f"{colour} {things[thing % 5]} {thing}"}
        for own, colour in enumerate(("red", "blue"))
        for thing in range(40)
    ]
    return Dataset.from_frames("colours", pl.DataFrame(rows, schema=schema, orient="row"), pl.DataFrame(titles))


@pytest.fixture(scope="module")
def shop() -> tuple[Dataset, Split]:
    dataset = colours(range(80))
    return dataset, leave_one_out(dataset, new_items=0, negatives=7, seed=1)


@pytest.fixture
def pair(tiny_backbone, tmp_path) -> list[Path]:
    """Two adapters: one that learned from users who choose red things only, one from those who choose blue ones."""
    options = {"rank": 4, "alpha": 8, "lr": 1e-2, "epochs": 1, "samples": 96, "batch_size": 16, "negatives": 7}
    options |= {"eval_users": 0, "evidence": False, "dropout": 0.0, "max_history": 3, "seed": 0}
    folders = []
    for kind, name in enumerate(("red", "blue")):
        dataset = colours(range(200, 240), kind)
        split = leave_one_out(dataset, new_items=0, negatives=7)
        folders.append(train(tiny_backbone, [(dataset, split)], tmp_path / name, **options))
    return folders


def ndcg_at_1(scores: list[np.ndarray], cases: pl.DataFrame) -> float:
    pairs = zip(scores, cases.select("target", "candidates").iter_rows(), strict=True)
    return float(np.mean([candidates[int(found.argmax())] == target for found, (target, candidates) in pairs]))


def test_planted(tiny_backbone, pair, shop, tmp_path):
    import time
    dataset, split = shop
    prompts = CasePrompts(tiny_backbone, pair)
    cases = split.test["warm"]
    examples = prompts.examples(dataset, split, cases)
    bank = AdapterBank.from_folders(pair)
    with install(tiny_backbone.model, bank, FACTORS) as mixed:
        for w in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.8]):
            mixed.set_weights(torch.tensor(w))
            print(w, ndcg_at_1(score(tiny_backbone.model, examples, prompts.builder), cases))
    t = time.time()
    found = choose_by_user(tiny_backbone, pair, dataset, split, tmp_path / "out", crm="titles", **{**QUICK, "epochs": 10})
    print(time.time() - t, {k: v for k, v in found.record.items() if k != "grid"})
    with PersonalLora.load(tmp_path / "out" / "personal", tiny_backbone) as personal:
        w = torch.from_numpy(user_weights(personal, cases.join(found.users, on="user_id", how="left", maintain_order="left"))).transpose(0, 1)
        print(ndcg_at_1(user_scores(personal, examples, w, prompts.builder), cases))
    print(found.users.select("user_id", "events", "weights").head(10))
