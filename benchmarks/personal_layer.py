"""Forward and backward of personal adapters, against one shared LoRA and against the released formulation.

    personal   lorarec: the router's weights of all layers in one product, the bank mixed inside the adapted layers
    shared     plain PEFT LoRA of the same rank on the same layers, the same for all rows
    released   RecLoRA's, written anew: in every adapted layer a forward hook runs a router of its own, two linear maps
               build every sample's A and B from its weights, and two batched products apply them

All adapt q_proj and v_proj with rank 8 and read the log-odds of the last token; the vocabulary is not projected. Times
are wall time of one pass over the batch, the ways in turn; the ratio is that of the medians. Memory is the most that
the tensors made in one pass take up at once, by torch's profiler: model and libraries are left out.

    python benchmarks/personal_layer.py --repeats 7
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from ranking_speed import random_qwen2
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from lorarec.backbone import Backbone
from lorarec.personal import PersonalLora, meta_loras
from lorarec.scoring import plan_for, verdict_scores

RANK, ALPHA, WIDTH, HIDDEN, YES_NO = 8, 16, 64, 60, (1, 2)
TARGETS = ("q_proj", "v_proj")
MODELS = ("embedded", "0.1B")

Step = Callable[[torch.Tensor, torch.Tensor], None]
Way = Callable[[Backbone, int], AbstractContextManager[Step]]
TARGETS = ("q_proj", "v_proj")


def make_backbone(name: str) -> Backbone:
    """The embedded one, or a randomly initialised Qwen2 in float32 of 0.12 billion parameters."""
    embedded = Backbone.from_pretrained()
    if name == "embedded":
        return embedded
    return Backbone(random_qwen2(152_000), embedded.tokenizer, name, name)


def pass_over(model: Any, ids: torch.Tensor) -> None:
    """Forward to the log-odds of the last token, and backward from the loss of random labels."""
    hidden = plan_for(model).trunk(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    labels = (torch.arange(len(ids)) % 2).float()
    nn.functional.binary_cross_entropy_with_logits(verdict_scores(model, hidden, YES_NO), labels).backward()


@contextmanager
def personal(backbone: Backbone, size: int) -> Iterator[Step]:
    with PersonalLora(backbone, meta_loras(backbone.model, size, RANK, ALPHA), WIDTH) as module:

        def step(ids: torch.Tensor, users: torch.Tensor) -> None:
            module.zero_grad()
            module.set_weights(module(users))
            pass_over(backbone.model, ids)

        yield step


@contextmanager
def shared(backbone: Backbone, size: int) -> Iterator[Step]:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    peft = get_peft_model(backbone.model, config)

    def step(ids: torch.Tensor, users: torch.Tensor) -> None:
        peft.zero_grad()
        pass_over(backbone.model, ids)

    yield step
    backbone.model = cast(PreTrainedModel, peft.unload())


class GeneratedLora(nn.Module):
    """The low-rank term of one layer, its matrices built for every sample by two linear maps."""

    def __init__(self, layer: nn.Linear, size: int) -> None:
        super().__init__()
        self.router = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(0.1), nn.Linear(HIDDEN, size)
        )
        self.make_a = nn.Linear(size, RANK * layer.in_features, bias=False)
        self.make_b = nn.Linear(size, layer.out_features * RANK, bias=False)
        self.users = torch.empty(0)

    def hook(self, layer: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        weights = self.router(self.users).softmax(-1)
        a = self.make_a(weights).view(-1, RANK, layer.in_features)
        b = self.make_b(weights).view(-1, layer.out_features, RANK)
        return output + torch.bmm(torch.bmm(inputs[0], a.transpose(1, 2)), b.transpose(1, 2)) * (ALPHA / RANK)


@contextmanager
def released(backbone: Backbone, size: int) -> Iterator[Step]:
    backbone.model.requires_grad_(False)
    found = [layer for name, layer in backbone.model.named_modules() if name.rpartition(".")[2] in TARGETS]
    added = nn.ModuleList(GeneratedLora(layer, size) for layer in found)
    handles = [layer.register_forward_hook(term.hook) for layer, term in zip(found, added, strict=True)]

    def step(ids: torch.Tensor, users: torch.Tensor) -> None:
        added.zero_grad()
        for term in added:
            term.users = users
        pass_over(backbone.model, ids)

    yield step
    for handle in handles:
        handle.remove()


WAYS: dict[str, Way] = {"personal": personal, "shared": shared, "released": released}


def batch(backbone: Backbone, rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids (rows, tokens) and representations (rows, input_size)."""
    torch.manual_seed(0)
    return torch.randint(300, len(backbone.tokenizer), (rows, tokens)), torch.randn(rows, WIDTH)


def seconds(way: str, backbone: Backbone, size: int, ids: torch.Tensor, users: torch.Tensor) -> float:
    with WAYS[way](backbone, size) as step:
        step(ids[:1, :8], users[:1])
        started = time.perf_counter()
        step(ids, users)
        return time.perf_counter() - started


def peak(way: str, backbone: Backbone, size: int, ids: torch.Tensor, users: torch.Tensor) -> float:
    """MiB of the tensors of one pass, activations and gradients, at their most."""
    with WAYS[way](backbone, size) as step, profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(ids, users)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events)) / 2**20


def report(name: str, label: str, found: dict[str, float]) -> None:
    line = ", ".join(f"{way} {value:.3g}" for way, value in found.items())
    own = found["personal"]
    ratios = f"personal / shared {own / found['shared']:.2f}x, released / personal {found['released'] / own:.2f}x"
    print(f"{name:9} {label:10} {line}: {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300, help="of every prompt")
    parser.add_argument("--adapters", type=int, default=16, help="meta-LoRAs, K")
    arguments = parser.parse_args()
    for name in arguments.models:
        backbone = make_backbone(name)
        data = batch(backbone, arguments.batch_size, arguments.tokens)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.repeats):
            for way in WAYS:
                times[way].append(seconds(way, backbone, arguments.adapters, *data))
        report(name, "seconds", {way: statistics.median(values) for way, values in times.items()})
        report(name, "peak MiB", {way: peak(way, backbone, arguments.adapters, *data) for way in WAYS})


if __name__ == "__main__":
    main()
