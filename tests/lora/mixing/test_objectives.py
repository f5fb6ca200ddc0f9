import pytest
import torch

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, inject
from lorarec.lora.objectives import Entropy, token_entropy
from lorarec.lora.unlabelled_search import value_and_gradient
from lorarec.prompts import PromptBuilder
from lorarec.scoring import score_batch


def released(model, prompt, tokens):
    """Reference: full passes without a cache, one prompt at a time."""
    ids, entropies = list(prompt), []
    for _ in range(tokens):
        p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].softmax(-1)
        entropies.append(-(p * p.log()).sum())
        ids.append(int(p.argmax()))
        if ids[-1] == model.config.eos_token_id:
            break
    return torch.stack(entropies).mean()


def test_tokens_equals_full_passes(any_backbone, make_prompts):
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    prompts = make_prompts(builder)
    with torch.no_grad():
        found = Entropy("tokens", builder)(any_backbone.model, prompts)
        expected = torch.stack([released(any_backbone.model, prompt.prompt, 3) for prompt in prompts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_tokens_after_the_end_do_not_count(tiny_backbone):
    model = tiny_backbone.model
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5]]
    first = int(model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].argmax())
    model.generation_config.eos_token_id = model.config.eos_token_id = first
    with torch.no_grad():
        found = token_entropy(model, prompts, 4)
        separate = torch.stack([released(model, prompt, 4) for prompt in prompts])
        torch.testing.assert_close(found, separate, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[0], token_entropy(model, prompts[:1], 1)[0])


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_candidates_is_the_entropy_of_the_posterior(any_backbone, readout, make_prompts):
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    prompts = make_prompts(builder)
    with torch.no_grad():
        found = Entropy("candidates", builder)(any_backbone.model, prompts)
        posteriors = [scores.softmax(0) for scores in score_batch(any_backbone.model, prompts, builder)]
    torch.testing.assert_close(found, torch.stack([-(p * p.log()).sum() for p in posteriors]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["candidates", "tokens"])
@pytest.mark.parametrize(("combine", "per_layer"), [("factors", True), ("deltas", False)])
def test_gradient_agrees_with_finite_differences(
    combine, objective, per_layer, any_backbone, make_adapter, make_prompts
):
    folders = [make_adapter(any_backbone, seed, std=0.1) for seed in (1, 2, 3)]
    any_backbone.model.double()
    # GPT-2 computes in float64 throughout; the others' norms, and scores where they are read, are in float32.
    exact = objective == "tokens" and any_backbone.id == "tiny-gpt2"
    step, tolerance = (1e-5, 1e-7) if exact else (3e-3, 3e-4)
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    entropy = Entropy(objective, builder)
    prompts = make_prompts(builder, 3)
    with inject(any_backbone.model, AdapterBank.load(folders), combine) as mixed:
        names = list(mixed.layers)
        generator = torch.Generator().manual_seed(3)
        logits = torch.randn(len(names) if per_layer else 1, 3, generator=generator, dtype=torch.float64)
        logits.requires_grad_()

        def value():
            return value_and_gradient(mixed, names, logits, prompts, entropy, token_budget=200)

        value()
        gradient = logits.grad.clone()
        assert gradient.abs().max() > 1e-4
        for row, column in [(0, 0), (len(logits) - 1, 2)]:
            with torch.no_grad():
                logits[row, column] += step
            above = value()
            with torch.no_grad():
                logits[row, column] -= 2 * step
            below = value()
            with torch.no_grad():
                logits[row, column] += step
            assert (above - below) / (2 * step) == pytest.approx(gradient[row, column].item(), abs=tolerance)


def test_unknown_objective(builder):
    with pytest.raises(LorarecError, match="unknown objective 'words'"):
        Entropy("words", builder)


def test_tokens_needs_titles_as_answers(builder):
    with pytest.raises(LorarecError, match="use readout likelihood"):
        Entropy("tokens", builder)
