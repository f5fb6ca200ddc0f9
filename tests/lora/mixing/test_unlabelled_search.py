import inspect

import pytest
import torch

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, inject
from lorarec.lora import unlabelled_search as search
from lorarec.lora.objectives import Agreement, Entropy
from lorarec.lora.simplex import simplex_grid
from lorarec.lora.unlabelled_search import unlabelled_weights
from lorarec.lora.weight_search import score_at_weights
from lorarec.prompts import Example
from tests.factories import random_adapter


@pytest.fixture
def mixed(tiny_backbone, adapters):
    with inject(tiny_backbone.model, AdapterBank.load(adapters), "factors") as handle:
        yield handle


def mean_entropy(mixed, weights, prompts, objective):
    mixed.set_weights(weights)
    with torch.no_grad():
        return objective(mixed.model, prompts).mean().item()


def test_points_as_rows_equal_points_one_by_one(mixed, builder, make_prompts):
    objective, prompts = Entropy("candidates", builder), make_prompts(builder)
    points = simplex_grid(2, 4)
    for budget in (10_000, 150, 1):
        found = score_at_weights(mixed, points, prompts, objective, objective.length, budget)
        for point, values in zip(points, found, strict=True):
            assert torch.stack(values).mean().item() == pytest.approx(
                mean_entropy(mixed, point, prompts, objective), abs=1e-5
            )


def test_pair_search_finds_the_lowest_point(tiny_backbone, make_adapter, builder, make_prompts):
    objective, prompts = Entropy("candidates", builder), make_prompts(builder)
    folders = [make_adapter(tiny_backbone, seed, std=0.06) for seed in (1, 2)]
    with inject(tiny_backbone.model, AdapterBank.load(folders), "factors") as mixed:
        weights, trace = unlabelled_weights(mixed, 2, prompts, objective, "model")
        lowest = min(mean_entropy(mixed, point, prompts, objective) for point in simplex_grid(2, 40))
        assert mean_entropy(mixed, weights, prompts, objective) <= lowest + 1e-3
    assert len(trace.steps) <= 9
    assert weights.sum().item() == pytest.approx(1)


def test_agreement_of_a_pair_lies_between_the_adapters(tiny_backbone, make_adapter, builder, make_prompts):
    agreement, prompts = Agreement(builder), make_prompts(builder)
    folders = [make_adapter(tiny_backbone, seed, std=0.06) for seed in (1, 2)]
    with inject(tiny_backbone.model, AdapterBank.load(folders), "factors") as mixed:
        referenced = agreement.reference(mixed, 2, prompts, 8192)
        weights, trace = unlabelled_weights(mixed, 2, referenced, agreement, "model")
        curve = {tuple(step.weights): step.metrics["divergence"] for step in trace.steps}
        lowest = min(mean_entropy(mixed, point, referenced, agreement) for point in simplex_grid(2, 40))
        assert mean_entropy(mixed, weights, referenced, agreement) <= lowest + 1e-3
    # Either adapter alone is as far from the other.
    assert curve[1, 0] == pytest.approx(curve[0, 1], rel=1e-3)
    assert 0 < weights[1].item() < 1


@pytest.mark.parametrize("scope", ["model", "layer"])
@pytest.mark.parametrize("method", [Entropy, Agreement])
def test_an_objective_that_is_no_number_is_refused(method, scope, tiny_backbone, builder, make_prompts):
    """The first adapter alone has finite scores; those of the other overflow."""
    bank = AdapterBank.stack([random_adapter(tiny_backbone, 1), random_adapter(tiny_backbone, 2, std=1e25)])
    with inject(tiny_backbone.model, bank, "deltas") as mixed:
        prompts = make_prompts(builder)
        objective = method("candidates", builder) if method is Entropy else method(builder)
        if method is Agreement:
            prompts = objective.reference(mixed, 2, prompts, None)
        with pytest.raises(LorarecError, match=f"the {method.metric} of a mixture is nan: load the model in float32"):
            unlabelled_weights(mixed, 2, prompts, objective, scope)


@pytest.mark.parametrize(
    ("curve", "lowest"),
    [
        (lambda x: (x - 0.37) ** 2 + 1, 0.37),
        (lambda x: 1 - x, 1.0),
        (lambda x: x**2, 0.0),
        (lambda x: -(x**2) + 0.9 * x, 1.0),
        (lambda x: abs(x - 0.6) ** 1.5, 0.6),
        (lambda x: 1.0, 0.5),
    ],
)
def test_pair_search_on_known_curves(curve, lowest, mixed, builder, make_prompts, monkeypatch):
    def known(mixed, points, *_):
        return [[torch.tensor(curve(float(x)))] for x in points[:, 1]]

    monkeypatch.setattr(search, "score_at_weights", known)
    weights, trace = search.search_pair(mixed, make_prompts(builder), Entropy("candidates", builder), 8192)
    assert weights[1].item() == pytest.approx(lowest, abs=0.03)
    assert len(trace.steps) <= 12


@pytest.mark.parametrize("scope", ["model", "layer"])
def test_descent_lowers_the_entropy_and_stops(scope, tiny_backbone, make_adapter, builder, make_prompts):
    folders = [make_adapter(tiny_backbone, seed) for seed in (1, 2, 3)]
    objective, prompts = Entropy("candidates", builder), make_prompts(builder)
    with inject(tiny_backbone.model, AdapterBank.load(folders), "deltas") as mixed:
        weights, trace = unlabelled_weights(mixed, 3, prompts, objective, scope)
        entropies = [step.metrics["entropy"] for step in trace.steps]
        assert trace.steps[0].weights == pytest.approx([1 / 3] * 3)
        assert min(entropies) < entropies[0]
        chosen = dict(zip(mixed.layers, weights, strict=True)) if scope == "layer" else weights
        assert mean_entropy(mixed, chosen, prompts, objective) == pytest.approx(min(entropies), abs=1e-5)
    assert weights.shape == ((14, 3) if scope == "layer" else (3,))
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)), atol=1e-6, rtol=0)
    assert trace.stopped == "step limit"


def test_descent_stops_on_a_plateau(mixed, builder, make_prompts):
    certain = [Example(example.prompt, example.branches[:1]) for example in make_prompts(builder)]
    _, trace = unlabelled_weights(mixed, 2, certain, Entropy("candidates", builder), "layer")
    assert trace.stopped == "plateau"
    assert len(trace.steps) == search.PATIENCE + 1


def test_only_the_weights_move(mixed, builder, make_prompts):
    before = {name: value.clone() for name, value in mixed.model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in mixed.model.parameters()]
    unlabelled_weights(mixed, 2, make_prompts(builder), Entropy("candidates", builder), "layer")
    assert all(torch.equal(before[name], value) for name, value in mixed.model.state_dict().items())
    assert all(parameter.grad is None for parameter in mixed.model.parameters())
    assert flags == [parameter.requires_grad for parameter in mixed.model.parameters()]


def test_gradient_does_not_depend_on_the_order_of_prompts_or_the_budget(mixed, builder, make_prompts):
    objective, prompts, names = Entropy("candidates", builder), make_prompts(builder), list(mixed.layers)
    found = []
    for order, budget in ((prompts, 8192), (prompts[::-1], 120)):
        logits = torch.zeros(len(names), 2, requires_grad=True)
        value = search.value_and_gradient(mixed, names, logits, order, objective, budget)
        found.append((torch.tensor(value), logits.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_no_prompts(mixed, builder):
    with pytest.raises(LorarecError, match="needs unlabelled prompts"):
        unlabelled_weights(mixed, 2, [], Entropy("candidates", builder), "model")


def test_labels_cannot_be_passed():
    assert set(Example.__dataclass_fields__) == {"prompt", "branches"}
    for function in (unlabelled_weights, search.search_pair, search.descend, search.value_and_gradient):
        assert not {"target", "targets", "labels", "validation"} & set(inspect.signature(function).parameters)
