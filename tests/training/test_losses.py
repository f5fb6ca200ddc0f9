import pytest
import torch

from lorarec.training.losses import listwise, next_token, pointwise


def test_listwise_is_the_log_posterior_of_the_target() -> None:
    scores = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.0, 0.0])]
    expected = -(scores[0].softmax(0)[2].log() + scores[1].softmax(0)[0].log())
    assert listwise(scores, [2, 0]).item() == pytest.approx(expected.item())


def test_listwise_temperature_divides_scores() -> None:
    scores = [torch.tensor([10.0, 20.0])]
    assert listwise(scores, [0], 10.0).item() == pytest.approx(listwise([scores[0] / 10], [0]).item())


def test_listwise_of_equal_scores_is_log_of_their_number() -> None:
    assert listwise([torch.zeros(8)], [3]).item() == pytest.approx(torch.tensor(8.0).log().item())


def test_pointwise_is_the_binary_cross_entropy_of_each_candidate() -> None:
    scores = [torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 40.0, 0.0])]
    expected = 0.0
    for case, target in zip(scores, [2, 0], strict=True):
        for place, score in enumerate(case):
            label = torch.tensor(float(place == target))
            expected += torch.nn.functional.binary_cross_entropy_with_logits(score, label).item() / len(case)
    assert pointwise(scores, [2, 0]).item() == pytest.approx(expected)


def test_pointwise_depends_on_other_candidates_by_the_mean_only() -> None:
    case = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    (slopes,) = torch.autograd.grad(pointwise([case], [0]), case)
    assert torch.allclose(slopes, (case.sigmoid() - torch.tensor([1.0, 0, 0])) / 3)


def test_next_token_is_minus_the_log_likelihood() -> None:
    assert next_token([torch.tensor([-1.5]), torch.tensor([-2.0])]).item() == pytest.approx(3.5)
