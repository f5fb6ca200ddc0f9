"""How exactly every causal language model of transformers is scored, as a table in Markdown.

For each tiny random model of tests/scoring/architectures.py: its plan, and the largest difference from scoring one
candidate at a time with plain transformers, over both readouts, alone, in a batch of three prompts, in chunks and with
the candidates reversed; and the largest difference of the gradient of the listwise loss, as a share of the largest
gradient. A model that cannot be scored exactly is refused, and the table says why.

    python benchmarks/architectures.py > docs/architectures.md
"""

import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import plan_for, score, score_batch
from lorarec.training.losses import listwise

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.scoring.architectures import ARCHITECTURES, UNBUILT, build, one_by_one_likelihood, one_by_one_verdict

PROMPTS, BRANCHES, TARGETS = (61, 74, 45), (1, 9, 3, 5, 2, 7), [1, 4, 0]
HEAD = """# Architectures

This page shows how every causal language model of transformers is scored, and how exactly. It was made by
`python benchmarks/architectures.py` with transformers {version}, torch {torch},
in float32 on a CPU, on tiny random models whose attention windows are shorter than the prompts.

- `tree`: a prompt and all its candidates are read in one pass, with each layer's own mask at the tree's positions.
- `prefix`: the prompt is read once, and a batch of candidates continues from its cached state.
- `rows`: the prompt is read again for each candidate. Gradients of `prefix` models are computed this way as well.

Differences are from scoring one candidate at a time with transformers alone; float32 rounds at about 1e-6.

| architecture | plan | windows | longest prompt | scores differ by | gradients differ by | why no faster plan |
|---|---|---|---|---|---|---|"""


def examples(model: PreTrainedModel, vocabulary: int) -> list[Example]:
    """Three prompts of unequal length, shorter where the model is defined on fewer tokens."""
    limit = plan_for(model).max_positions or 1024
    over = max(0, max(PROMPTS) + max(BRANCHES) - limit)
    draws = torch.Generator().manual_seed(7)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=draws).tolist()

    return [Example(tokens(max(1, n - over)), [tokens(count) for count in BRANCHES]) for n in PROMPTS]


def one_by_one(model: PreTrainedModel, example: Example, builder: PromptBuilder) -> torch.Tensor:
    if builder.readout == "verdict":
        return one_by_one_verdict(model, example.prompt, example.branches, *builder.yes_no)
    return one_by_one_likelihood(model, example.prompt, example.branches)


def differences(model: PreTrainedModel, builder: PromptBuilder) -> tuple[float, float]:
    """The largest difference of scores, and that of gradients over the largest gradient."""
    cases = examples(model, len(builder.tokenizer))
    expected = [one_by_one(model, case, builder) for case in cases]
    listwise(expected, TARGETS).backward()
    wanted = gradients(model)
    listwise(score_batch(model, cases, builder), TARGETS).backward()
    found = gradients(model)
    largest = max(float(each.abs().max()) for each in wanted.values())
    gradient = max(float((found[name] - each).abs().max()) / largest for name, each in wanted.items())
    backwards = [Example(case.prompt, case.branches[::-1]) for case in cases]
    ways = [
        score(model, cases, builder),
        score(model, cases, builder, token_budget=max(case.length for case in cases)),
        score(model, cases, builder, token_budget=min(case.length for case in cases) // 2),
        [scores[::-1].copy() for scores in score(model, backwards, builder)],
    ]
    apart = [
        float((torch.from_numpy(scores) - each.detach()).abs().max())
        for way in ways
        for scores, each in zip(way, expected, strict=True)
    ]
    return max(apart), gradient


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    taken = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return taken


def main() -> None:
    import transformers

    print(HEAD.format(version=transformers.__version__, torch=torch.__version__))
    tokenizer = Backbone.from_pretrained("embedded").tokenizer
    builders = [PromptBuilder(tokenizer, readout) for readout in ("verdict", "likelihood")]
    for name in ARCHITECTURES:
        model = build(name, len(tokenizer))
        try:
            plan = plan_for(model)
        except LorarecError as error:
            print(f"| {name} | refused | | | | | {str(error).partition(' cannot be scored: ')[2]} |", flush=True)
            continue
        scores, gradient = (max(pair) for pair in zip(*(differences(model, each) for each in builders), strict=True))
        windows = ", ".join(map(str, plan.windows))
        print(
            f"| {name} | {plan.kind} | {windows} | {plan.max_positions or ''} | {scores:.0e} | {gradient:.0e} "
            f"| {plan.reason} |",
            flush=True,
        )
    print(
        f"\nNot made tiny, so not measured: {', '.join(sorted(UNBUILT))}. Such a model is measured when it is loaded."
    )


if __name__ == "__main__":
    main()
