import pytest
import torch

from lorarec.training.losses import listwise, next_token


def test_listwise_is_the_log_posterior_of_the_target() -> None:
    scores = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.0, 0.0])]
    expected = -(scores[0].softmax(0)[2].log() + scores[1].softmax(0)[0].log())
    assert listwise(scores, [2, 0]).item() == pytest.approx(expected.item())


def test_listwise_temperature_divides_scores() -> None:
    scores = [torch.tensor([10.0, 20.0])]
    assert listwise(scores, [0], 10.0).item() == pytest.approx(listwise([scores[0] / 10], [0]).item())


def test_listwise_of_equal_scores_is_log_of_their_number() -> None:
    assert listwise([torch.zeros(8)], [3]).item() == pytest.approx(torch.tensor(8.0).log().item())


def test_next_token_is_minus_the_log_likelihood() -> None:
    assert next_token([torch.tensor([-1.5]), torch.tensor([-2.0])]).item() == pytest.approx(3.5)
