import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, inject
from lorarec.lora.calibration import Calibration
from lorarec.lora.objectives import Agreement, Entropy, jensen_shannon, token_entropy
from lorarec.lora.unlabelled_search import value_and_gradient
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score_batch


def released(model, example, tokens):
    """Reference: full passes without a cache, one prompt at a time, up to the end of the answer."""
    ids, entropies = list(example.prompt), []
    ends = {model.config.eos_token_id, *(branch[-1] for branch in example.branches)}
    for _ in range(tokens):
        p = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].softmax(-1)
        entropies.append(-(p * p.log()).sum())
        ids.append(int(p.argmax()))
        if ids[-1] in ends:
            break
    return torch.stack(entropies).mean()


def test_tokens_equals_full_passes(any_backbone, make_prompts):
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    prompts = make_prompts(builder)
    with torch.no_grad():
        found = Entropy("tokens", builder)(any_backbone.model, prompts)
        expected = torch.stack([released(any_backbone.model, prompt, 3) for prompt in prompts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


@pytest.mark.parametrize("end", ["sequence", "sequences", "line"])
def test_tokens_after_the_end_do_not_count(end, tiny_backbone):
    """An answer ends with an end of sequence, of which there may be several, or with the last token of a branch."""
    model, prompts = tiny_backbone.model, [[5, 6, 7], [9, 8, 7, 6, 5]]
    first = int(model(input_ids=torch.tensor([prompts[0]], device=model.device)).logits[0, -1].argmax())
    if end != "line":
        model.config.eos_token_id = first
        model.generation_config.eos_token_id = first if end == "sequence" else [0, first]
    branches = [[3, first], [4, first]] if end == "line" else [[3, 4], [3, 2]]
    examples = [Example(prompt, branches) for prompt in prompts]
    with torch.no_grad():
        found = token_entropy(model, examples, 4)
        separate = torch.stack([released(model, example, 4) for example in examples])
        torch.testing.assert_close(found, separate, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[0], token_entropy(model, examples[:1], 1)[0])


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_candidates_is_the_entropy_of_the_posterior(any_backbone, readout, make_prompts):
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    prompts = make_prompts(builder)
    with torch.no_grad():
        found = Entropy("candidates", builder)(any_backbone.model, prompts)
        posteriors = [scores.softmax(0) for scores in score_batch(any_backbone.model, prompts, builder)]
    torch.testing.assert_close(found, torch.stack([-(p * p.log()).sum() for p in posteriors]), rtol=1e-4, atol=1e-5)


def divergence(p, q):
    """Reference: the Jensen-Shannon divergence by a loop from its formula."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += (a * math.log(a / middle) + b * math.log(b / middle)) / 2
    return total


def posteriors_at(mixed, weights, prompts, builder, temperature=1.0):
    mixed.set_weights(weights)
    with torch.no_grad():
        scores = score_batch(mixed.model, prompts, builder)
    return [(each.double() / temperature).softmax(0).tolist() for each in scores]


def test_jensen_shannon_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 50, 7, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)
    found = jensen_shannon(p, q)
    # SciPy has the square root of the divergence.
    np.testing.assert_allclose(found, jensenshannon(p.exp(), q.exp(), axis=1) ** 2, atol=1e-12)
    torch.testing.assert_close(found, jensen_shannon(q, p))
    torch.testing.assert_close(jensen_shannon(p, p), torch.zeros(50, dtype=torch.float64), atol=1e-12, rtol=0)
    assert 0 < found.min() < found.max() < math.log(2)
    apart = torch.tensor([[500.0, 0.0], [0.0, 500.0]]).log_softmax(-1)
    assert jensen_shannon(*apart).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("temperatures", [None, (0.5, 1.0, 3.0)])
def test_agreement_is_the_mean_divergence_to_the_adapters(
    readout, temperatures, any_backbone, make_adapter, make_prompts
):
    folders = [make_adapter(any_backbone, seed, std=0.1, readout=readout) for seed in (1, 2, 3)]
    builder = PromptBuilder(any_backbone.tokenizer, readout)
    prompts = make_prompts(builder)
    with inject(any_backbone.model, AdapterBank.load(folders), "factors") as mixed:
        calibration = None if temperatures is None else Calibration(mixed, torch.tensor(temperatures))
        agreement = Agreement(builder, calibration)
        referenced = agreement.reference(mixed, 3, prompts, 200)
        own = temperatures or (1.0, 1.0, 1.0)
        alone = [posteriors_at(mixed, w, prompts, builder, t) for w, t in zip(torch.eye(3), own, strict=True)]
        weights = torch.tensor([0.2, 0.3, 0.5])
        temperature = sum(w * t for w, t in zip(weights.tolist(), own, strict=True))
        mixture = posteriors_at(mixed, weights, prompts, builder, temperature)
        expected = [sum(divergence(mixture[i], adapter[i]) for adapter in alone) / 3 for i in range(len(prompts))]
        with torch.no_grad():
            found = agreement(mixed.model, referenced)
        assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        mixed.set_weights(torch.tensor([0.0, 1.0, 0.0]))
        with torch.no_grad():
            single = agreement(mixed.model, referenced)
        to_others = [(divergence(b, a) + divergence(b, c)) / 3 for a, b, c in zip(*alone, strict=True)]
        assert single.tolist() == pytest.approx(to_others, rel=1e-3, abs=1e-6)


def test_calibrated_entropy_is_that_of_the_divided_scores(tiny_backbone, make_adapter, builder, make_prompts):
    prompts = make_prompts(builder)
    folders = [make_adapter(tiny_backbone, seed) for seed in (1, 2)]
    with inject(tiny_backbone.model, AdapterBank.load(folders), "deltas") as mixed, torch.no_grad():
        objective = Entropy("candidates", builder, calibration=Calibration(mixed, torch.tensor([0.5, 4.0])))
        mixed.set_weights(torch.tensor([[0.4, 0.6]]).expand(len(prompts), -1))
        found = objective(mixed.model, prompts)
        posteriors = [(each / 2.6).softmax(0) for each in score_batch(mixed.model, prompts, builder)]
    torch.testing.assert_close(found, torch.stack([-(p * p.log()).sum() for p in posteriors]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["candidates", "tokens", "calibrated", "agreement", "calibrated agreement"])
@pytest.mark.parametrize(("combine", "per_layer"), [("factors", True), ("deltas", False)])
def test_gradient_agrees_with_finite_differences(
    combine, objective, per_layer, any_backbone, make_adapter, make_prompts
):
    # Adapters have to differ by more before their divergence has a gradient that can be measured.
    std = 0.3 if "agreement" in objective else 0.1
    folders = [make_adapter(any_backbone, seed, std) for seed in (1, 2, 3)]
    any_backbone.model.double()
    # GPT-2 computes in float64 throughout; the others' norms, and scores where they are read, are in float32.
    exact = objective == "tokens" and any_backbone.id == "tiny-gpt2"
    step, tolerance = (1e-5, 1e-7) if exact else (3e-3, 3e-4)
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    prompts = make_prompts(builder, 3)
    with inject(any_backbone.model, AdapterBank.load(folders), combine) as mixed:
        calibration = Calibration(mixed, torch.tensor([0.5, 1.0, 3.0])) if "calibrated" in objective else None
        if "agreement" in objective:
            minimised = Agreement(builder, calibration)
            prompts = minimised.reference(mixed, 3, prompts, 200)
        else:
            minimised = Entropy("tokens" if objective == "tokens" else "candidates", builder, calibration=calibration)
        names = list(mixed.layers)
        generator = torch.Generator().manual_seed(3)
        logits = torch.randn(len(names) if per_layer else 1, 3, generator=generator, dtype=torch.float64)
        logits.requires_grad_()

        def value():
            return value_and_gradient(mixed, names, logits, prompts, minimised, token_budget=200)

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
