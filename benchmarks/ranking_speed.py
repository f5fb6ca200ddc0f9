"""Ranking 30 candidates: one pass against one by one, and against generating the list.

Every ratio is the median over rounds in which both ways rank the same prompts in turn. One by one is what a script
with `AutoModelForCausalLM` does: the 30 prompts with their candidates as one right-padded batch. The list is generated
greedily with a key-value cache, five titles long as the paper's answers. A tree by hand is the same pass with an
attention mask and two columns of the head put together here, which is right on models without windows and with a plain
head alone. Then models that take no tree: their prompts are read once and go on from the cached state. Then memory: the
peak of scoring titles by likelihood with a vocabulary of 152,000 words as the prompt grows, in a process of its own for
each length. Times are of the process, not of the clock.

With `--backbone`, one pass is compared with the bare model instead: a forward pass of the layers over as many tokens,
causal and without padding, which reads no candidates and has no head. Prompts are validation cases of the bundled
sample, scored in batches as by `Ranker`.

    python benchmarks/ranking_speed.py --rounds 5
    python benchmarks/ranking_speed.py --rounds 7 --prompts 8 --backbone SmolLM2-135M-Instruct.Q4_1.gguf
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lorarec.backbone import Backbone
from lorarec.data import leave_one_out, load_sample
from lorarec.prompts import Example, PromptBuilder, case_examples
from lorarec.scoring import pack, plan_for, score, score_batch, token_batches

CANDIDATES, TITLES, TITLE_TOKENS, HISTORY = 30, 5, 12, 10


def random_qwen2(vocabulary: int, hidden: int = 512, layers: int = 14) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2 in float32; the default has 0.12 billion parameters with 152,000 words."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def random_without_trees(vocabulary: int = 8_000) -> dict[str, PreTrainedModel]:
    """Models with ALiBi, convolutions or recurrent layers, of about ten million parameters."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": vocabulary, "hidden_size": 256}
    hybrid = ["conv", "conv", "full_attention", "conv", "conv", "full_attention"]
    return {
        "BLOOM": BloomForCausalLM(BloomConfig(n_layer=6, n_head=8, **sizes)),
        "LFM2": Lfm2ForCausalLM(
            Lfm2Config(
                num_hidden_layers=6,
                layer_types=hybrid,
                num_attention_heads=8,
                num_key_value_heads=8,
                intermediate_size=768,
                **sizes,
            )
        ),
        "Mamba 2": Mamba2ForCausalLM(
            Mamba2Config(num_hidden_layers=6, num_heads=16, head_dim=32, state_size=64, n_groups=1, **sizes)
        ),
        "Mamba": MambaForCausalLM(MambaConfig(num_hidden_layers=6, **sizes)),
    }


def random_examples(count: int, history: int, readout: str, vocabulary: int) -> list[Example]:
    """Prompts of `history` titles (and the candidate list for `likelihood`) with 30 candidates of 12 tokens."""
    rng = np.random.default_rng(0)
    listed = history + (CANDIDATES if readout == "likelihood" else 0)

    def titles(number: int) -> list[list[int]]:
        return rng.integers(300, vocabulary, (number, TITLE_TOKENS)).tolist()

    return [Example([t for title in titles(listed) for t in title], titles(CANDIDATES)) for _ in range(count)]


@torch.no_grad()
def one_pass(model: PreTrainedModel, example: Example, builder: PromptBuilder) -> np.ndarray:
    return score_batch(model, [example], builder)[0].numpy()


@torch.no_grad()
def tree_by_hand(model: Qwen2ForCausalLM, example: Example, builder: PromptBuilder) -> np.ndarray:
    batch = pack([example])
    segments = batch.tree.segment_ids
    related = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    allowed = related & torch.ones(related.shape[1:], dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]
    hidden = model.model(
        input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.tree.position_ids, use_cache=False
    ).last_hidden_state[0]
    lengths = np.array([len(branch) for branch in example.branches])
    ends = len(example.prompt) + lengths.cumsum() - 1
    if builder.readout == "verdict":
        logits = nn.functional.linear(hidden[ends], model.lm_head.weight[list(builder.yes_no)])
        return (logits[:, 0] - logits[:, 1]).numpy()
    starts = ends - lengths + 1
    places = [[len(example.prompt) - 1, *range(start, end)] for start, end in zip(starts, ends, strict=True)]
    log_probs = model.lm_head(hidden[list(chain(*places))]).log_softmax(-1)
    chosen = log_probs.gather(1, torch.tensor(list(chain(*example.branches)))[:, None])[:, 0]
    return np.array([part.sum() for part in chosen.split(lengths.tolist())])


@torch.no_grad()
def one_by_one(model: PreTrainedModel, example: Example, builder: PromptBuilder) -> np.ndarray:
    rows = torch.tensor([example.prompt + branch for branch in example.branches])
    logits = model(input_ids=rows).logits
    if builder.readout == "verdict":
        yes, no = builder.yes_no
        return (logits[:, -1, yes] - logits[:, -1, no]).numpy()
    start = len(example.prompt)
    log_probs = logits[:, start - 1 : -1].log_softmax(-1)
    return log_probs.gather(2, rows[:, start:, None]).sum((1, 2)).numpy()


@torch.no_grad()
def generate(model: Qwen2ForCausalLM, example: Example, builder: PromptBuilder) -> np.ndarray:
    tokens = TITLES * (TITLE_TOKENS + 1)
    # A model can only answer with candidates that its prompt lists; before a verdict it does not.
    listed = example.prompt if builder.readout == "likelihood" else [*example.prompt, *chain(*example.branches)]
    generated: torch.Tensor = cast(Any, model).generate(
        torch.tensor([listed]), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
    )
    return generated.numpy()


def seconds(
    way: Callable[..., np.ndarray], model: PreTrainedModel, examples: list[Example], builder: PromptBuilder
) -> float:
    started = time.process_time()
    for example in examples:
        way(model, example, builder)
    return (time.process_time() - started) / len(examples)


def compare(
    name: str,
    model: PreTrainedModel,
    builder: PromptBuilder,
    rounds: int,
    prompts: int,
    ways: dict[str, Callable[..., np.ndarray]],
) -> None:
    """Print how many times longer each of the ways takes than lorarec's."""
    examples = random_examples(prompts, HISTORY, builder.readout, model.config.vocab_size)
    np.testing.assert_allclose(
        one_pass(model, examples[0], builder), one_by_one(model, examples[0], builder), atol=1e-2, rtol=1e-3
    )
    times: dict[str, list[float]] = {way: [] for way in ("one pass", *ways)}
    for _ in range(rounds):
        for way, function in {"one pass": one_pass, **ways}.items():
            times[way].append(seconds(function, model, examples, builder))
    for way in ways:
        ratios = [slow / fast for slow, fast in zip(times[way], times["one pass"], strict=True)]
        plan, fast = plan_for(model).kind, statistics.median(times["one pass"])
        print(
            f"{name:10} {builder.readout:10} {plan:6} {fast:.3f} s/user, "
            f"{way} {statistics.median(times[way]):.3f} s/user: {statistics.median(ratios):.2f}x "
            f"(from {min(ratios):.1f} to {max(ratios):.1f})",
            flush=True,
        )


@torch.no_grad()
def bare_forward(backbone: Backbone, examples: list[Example]) -> None:
    """Read as many tokens as the examples have, in the same batches and without padding."""
    lengths = [example.length for example in examples]
    for batch in token_batches(lengths):
        tokens = sum(lengths[index] for index in batch) // len(batch)
        ids = torch.randint(len(backbone.tokenizer), (len(batch), tokens))
        plan_for(backbone.model).trunk(input_ids=ids, use_cache=False)


def compare_with_bare(backbone: Backbone, readout: str, rounds: int, prompts: int) -> None:
    """Print how many times longer scoring takes than a bare forward pass of as many tokens."""
    builder, dataset = PromptBuilder(backbone.tokenizer, readout), load_sample()
    rows = leave_one_out(dataset).valid.head(prompts)
    examples = case_examples(rows, dataset.titles, builder, HISTORY, None)
    ways: dict[str, Callable[[], object]] = {
        "one pass": lambda: score(backbone.model, examples, builder),
        "bare": lambda: bare_forward(backbone, examples),
    }
    for way in ways.values():  # warms up
        way()
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(time.process_time() - started)
    ratios = [ours / bare for ours, bare in zip(times["one pass"], times["bare"], strict=True)]
    print(
        f"{backbone.id} {readout}: {prompts} prompts, {sum(example.length for example in examples)} tokens, one pass "
        f"{statistics.median(times['one pass']):.2f} s, bare forward {statistics.median(times['bare']):.2f} s: "
        f"{statistics.median(ratios):.3f}x (from {min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def peak_memory(history: int) -> None:
    """Print the growth of the peak, in MiB, over the model's own memory."""
    model = random_qwen2(152_000, hidden=128, layers=2)
    builder = PromptBuilder(Backbone.from_pretrained().tokenizer, "likelihood")
    one_pass(model, random_examples(1, 1, "verdict", 152_000)[0], builder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    example = random_examples(1, history, "verdict", 152_000)[0]
    one_pass(model, example, builder)
    print(f"{len(example.prompt)} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=2, help="prompts per round and way")
    parser.add_argument("--backbone", help="compare with the bare forward pass of this backbone instead")
    parser.add_argument("--peak-memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.backbone:
        backbone = Backbone.from_pretrained(arguments.backbone)
        for readout in ("verdict", "likelihood"):
            compare_with_bare(backbone, readout, arguments.rounds, arguments.prompts)
        return
    if arguments.peak_memory:
        peak_memory(arguments.peak_memory)
        return
    embedded = Backbone.from_pretrained()
    builders = [PromptBuilder(embedded.tokenizer, readout) for readout in ("verdict", "likelihood")]
    trees = {"one by one": one_by_one, "a tree by hand": tree_by_hand, "generation of the list": generate}
    for name, model in (("embedded", embedded.model), ("0.1B", random_qwen2(152_000))):
        for builder in builders:
            compare(name, model, builder, arguments.rounds, arguments.prompts, trees)
    for name, model in random_without_trees().items():
        for builder in builders:
            compare(name, model.eval(), builder, arguments.rounds, arguments.prompts, {"one by one": one_by_one})
    full = 152_000 * 4 / 2**20
    for history in (10, 40, 160):
        command = [sys.executable, __file__, "--peak-memory", str(history)]
        length, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        whole = (int(length) + CANDIDATES * TITLE_TOKENS) * full
        print(
            f"prompt of {length} tokens: peak {grown} MiB above a short one; logits of all positions: {whole:.0f} MiB"
        )


if __name__ == "__main__":
    main()
