"""Choosing weights by entropy against the released MoLoRec procedure, in one run on the same prompts and adapters.

The released procedure, written anew here: for every prompt, T = 3 full forward passes without a cache, with gradients
and with all positions projected to the vocabulary; a backward pass; then free generation, on a cache, to the end of
the answer (five titles). It goes over the prompts once, with weights for every layer. Left out of it, in its favour:
padding every prompt to 1200 tokens, gradient checkpointing, and the sweep over ten learning rates.

Rows of ours, each against one such pass:

    one gradient    the same objective and the same gradient, weights for every layer
    whole choice    one weight for the model: every evaluation until the search ends
    by descent      the same by Adam, to show what the search without gradients saves

    python benchmarks/entropy_mixing.py [--models embedded random] [--prompts 16] [--released 3]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from lorarec.backbone.load import Backbone, embedded_folder
from lorarec.data import leave_one_out
from lorarec.data.columns import CANDIDATES, HISTORY
from lorarec.data.sample import load_sample
from lorarec.lora import AdapterBank, MixedModel, StackedLayer, inject
from lorarec.lora.objectives import Entropy
from lorarec.lora.target_layers import dimensions, linear_layers
from lorarec.lora.unlabelled_search import descend, frozen, search_pair, value_and_gradient
from lorarec.prompts import Example, PromptBuilder

TOKENS, TITLES, RANK = 3, 5, 16


def random_model() -> Any:
    """A randomly initialised Qwen2 of 0.1B parameters with the vocabulary of the family."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def random_bank(model: Any) -> AdapterBank:
    """Two random adapters of the paper's shape on all linear layers."""
    layers = {}
    for name, layer in linear_layers(model).items():
        width, height = dimensions(layer) or (0, 0)
        a, b = torch.randn(2, RANK, width) / width, torch.randn(2, height, RANK) / RANK
        layers[name] = StackedLayer(a, b, torch.full((2,), 2.0), (RANK, RANK))
    return AdapterBank(layers, 2, {}, ("general", "specific"))


def released_pass(mixed: MixedModel, logits: torch.Tensor, prompts: Sequence[Example], answer: int) -> None:
    """One pass of the released procedure over the prompts; leaves the gradient in `logits.grad`."""
    model, names = mixed.model, list(mixed.layers)
    for prompt in prompts:
        mixed.set_weights(dict(zip(names, logits.softmax(1), strict=True)))
        ids = torch.tensor([prompt.prompt], device=model.device)
        entropies = []
        for _ in range(TOKENS):
            log_p = model(input_ids=ids, use_cache=False).logits[:, -1].log_softmax(-1)
            entropies.append(-(log_p.exp() * log_p).sum())
            ids = torch.cat([ids, log_p.detach().argmax(-1, keepdim=True)], 1)
        with torch.no_grad():
            cache, step = DynamicCache(config=model.config), ids
            for _ in range(answer - TOKENS):
                step = model(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        (torch.stack(entropies).sum() / (TOKENS * len(prompts))).backward()


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def compare(name: str, model: Any, tokenizer: Any, count: int, released: int, budget: int) -> None:
    dataset = load_sample()
    cases = leave_one_out(dataset, new_items=0).test["warm"].sample(count, seed=0).select(HISTORY, CANDIDATES)
    titles = [([dataset.titles[i] for i in h[-10:]], [dataset.titles[i] for i in c]) for h, c in cases.iter_rows()]
    builders = {"tokens": PromptBuilder(tokenizer, "likelihood"), "candidates": PromptBuilder(tokenizer, "verdict")}
    prompts = {key: [builder.example(*case) for case in titles] for key, builder in builders.items()}
    lengths = [len(branch) for prompt in prompts["tokens"] for branch in prompt.branches]
    answer = TITLES * sum(lengths) // len(lengths)
    mean = {key: sum(map(Entropy(key, builders[key]).length, prompts[key])) // count for key in builders}
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"\n{name}: {parameters:.1f}M parameters, {count} prompts, answers of {answer} tokens, mean length {mean}")
    with inject(model, random_bank(model), "deltas") as mixed, frozen(model):
        names = list(mixed.layers)
        logits = torch.zeros(len(names), 2, device=model.device, requires_grad=True)
        released_pass(mixed, logits, prompts["tokens"][:1], TOKENS + 1)
        baseline = seconds(lambda: released_pass(mixed, logits, prompts["tokens"][:released], answer)) / released
        print(f"  {'released procedure, one pass':44}{baseline:9.3f} s per prompt")
        for key, builder in builders.items():
            objective = Entropy(key, builder, TOKENS)
            actions = {
                "one gradient": lambda o=objective, p=prompts[key]: value_and_gradient(
                    mixed, names, logits, p, o, budget
                ),
                "whole choice": lambda o=objective, p=prompts[key]: search_pair(mixed, p, o, budget),
                "by descent": lambda o=objective, p=prompts[key]: descend(mixed, 2, p, o, False, budget),
            }
            for label, action in actions.items():
                ours = seconds(action) / count
                print(f"  {key + ', ' + label:44}{ours:9.3f} s per prompt {baseline / ours:8.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["embedded", "random"], choices=["embedded", "random"])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--released", type=int, default=3, help="prompts that the released procedure is timed on")
    parser.add_argument("--token-budget", type=int, default=8192)
    arguments = parser.parse_args()
    if not any(embedded_folder().glob("*.safetensors")):
        raise SystemExit(
            "the embedded backbone, whose tokenizer is needed, is missing: make it with tools/embedded_backbone"
        )
    embedded = Backbone.from_pretrained()
    device = embedded.model.device
    for name in arguments.models:
        model = embedded.model if name == "embedded" else random_model().to(device)
        label = "embedded backbone" if name == "embedded" else "random Qwen2"
        compare(label, model, embedded.tokenizer, arguments.prompts, arguments.released, arguments.token_budget)


if __name__ == "__main__":
    main()
