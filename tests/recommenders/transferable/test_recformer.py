"""RecFormer's own mechanism: bidirectional attention, masked tokens, two stages."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lorarec.recommenders import TrainingData
from lorarec.recommenders.transferable.item_text import KEY, VALUE, TokenizedText, tokenize_items
from lorarec.recommenders.transferable.recformer import fine_tune, pretrain
from lorarec.recommenders.transferable.recformer_model import (
    RecFormerConfig,
    RecFormerEncoder,
    RecFormerModel,
    principal_components,
)

OPTIONS: dict[str, Any] = {
    "hidden_size": 16,
    "num_layers": 1,
    "batch_size": 8,
    "dropout": 0,
    "pretrain_learning_rate": 5e-3,
    "learning_rate": 5e-3,
}


@pytest.fixture(scope="module")
def config() -> RecFormerConfig:
    return RecFormerConfig(**OPTIONS, pretrain_epochs=15, epochs=2, masked_weight=5.0)


@pytest.fixture(scope="module")
def encoder(circles: TrainingData, config: RecFormerConfig) -> RecFormerEncoder:
    """Pre-trained on the general domains of the circles."""
    return pretrain(circles, config).eval()


def _model(data: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig) -> RecFormerModel:
    assert data.backbone is not None
    words = tokenize_items(
        [data.dataset], data.backbone.tokenizer, encoder.start, config.max_title_tokens, config.max_field_tokens
    )
    copy = RecFormerEncoder(torch.zeros(encoder.start, config.hidden_size), config)
    copy.load_state_dict(encoder.state_dict())
    return RecFormerModel(copy, words, config)


def test_a_later_token_changes_an_earlier_state(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> None:
    text = _model(circles, encoder, config).text(torch.tensor([[0, 1]]))
    tokens = text.tokens.clone()
    tokens[0, -1] = encoder.mask
    one, two = encoder(text), encoder(text._replace(tokens=tokens))
    assert (one - two)[0, 1].abs().max() > 1e-4


def test_padding_of_ranks_changes_nothing(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> None:
    model = _model(circles, encoder, config)
    histories = [np.array([3]), np.arange(9)]
    together = model.eval().queries(histories)
    for row, history in zip(together, histories, strict=True):
        torch.testing.assert_close(row, model.queries([history])[0], atol=1e-6, rtol=0)


def test_the_latest_item_is_first_and_remains_after_truncation(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> None:
    model = _model(circles, encoder, config).eval()
    model.config = replace(config, max_history=2)
    one, two, three = model.queries([np.array([7, 3, 5]), np.array([3, 5]), np.array([5, 3])])
    torch.testing.assert_close(one, two)
    assert not torch.allclose(two, three, atol=1e-5)


def test_masked_tokens_are_about_the_ratio_and_never_the_start_token(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> None:
    text = _model(circles, encoder, config).text(torch.arange(40)[:, None].expand(-1, 10))
    torch.manual_seed(0)
    masked, selected = encoder.mask_tokens(text, 0.3)
    words = text.kinds >= KEY
    assert not selected[~words].any()
    assert 0.25 < selected[words].float().mean() < 0.35
    assert torch.equal(masked.tokens[~selected], text.tokens[~selected])
    assert 0.7 < (masked.tokens[selected] == encoder.mask).float().mean() < 0.9


def test_hidden_words_are_guessed_better_than_by_their_frequency(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> None:
    model = _model(circles, encoder, config)
    circle = torch.arange(5)[None] + 10 * torch.arange(4)[:, None]
    text = model.text(circle.repeat(10, 1))
    torch.manual_seed(1)
    masked, selected = encoder.mask_tokens(text, 0.15)
    selected &= text.kinds == VALUE
    true = text.tokens[selected]
    commonest = text.tokens[(text.kinds == VALUE)].bincount().max() / (text.kinds == VALUE).sum()
    with torch.no_grad():
        right = (encoder.token_logits(encoder(masked)[selected]).argmax(-1) == true).float().mean()
    assert len(true) > 30
    assert right > 1.1 * commonest


def test_the_second_stage_leaves_item_vectors_as_they_are(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(circles, encoder, config)
    seen: list[torch.Tensor] = []
    figures = iter([0.1, 0.5, 0.6, 0.7])  # two epochs of each stage, every one better

    def validation_ndcg(_: TrainingData, scorer: Any) -> float:
        seen.append(torch.from_numpy(scorer.vectors.copy()))
        return next(figures)

    monkeypatch.setattr(TrainingData, "validation_ndcg", validation_ndcg)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    fine_tune(circles, model)
    first, second, third, fourth = seen
    assert not torch.equal(first, second)
    for vectors in (third, fourth, model.vectors):
        assert torch.equal(vectors, second)
    assert any(not torch.equal(weight, before[name]) for name, weight in model.encoder.state_dict().items())
    model.encode_items()
    assert not torch.equal(model.vectors, second)


@pytest.mark.parametrize("prefixes", [1, 3, 99])
def test_an_epoch_learns_from_so_many_next_items_of_each_history(
    prefixes: int,
    circles: TrainingData,
    encoder: RecFormerEncoder,
    config: RecFormerConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model(circles, encoder, replace(config, epochs=1, prefixes=prefixes))
    read, vectors = [], model.encoder.vectors

    def counted(text: TokenizedText) -> torch.Tensor:
        if torch.is_grad_enabled():
            read.append(len(text.tokens))
        return vectors(text)

    monkeypatch.setattr(TrainingData, "validation_ndcg", lambda *_: 0.5)
    monkeypatch.setattr(model, "encode_items", lambda: None)
    monkeypatch.setattr(model.encoder, "vectors", counted)
    fine_tune(circles, model)
    stages = 2
    assert sum(read) == stages * sum(min(len(history) - 1, prefixes) for history in circles.histories)


def test_a_second_stage_without_gain_leaves_the_best_of_the_first(
    circles: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for epochs, figures in ((2, [0.5, 0.4, 0.3, 0.2]), (1, [0.5, 0.4])):
        model = _model(circles, encoder, replace(config, epochs=epochs))
        turn = iter(figures)
        monkeypatch.setattr(TrainingData, "validation_ndcg", lambda *_, turn=turn: next(turn))
        fine_tune(circles, model)
        found.append(model.state_dict())
    for name, weight in found[0].items():
        assert torch.equal(weight, found[1][name])


def test_principal_components_keep_what_distances_they_can() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 4) @ torch.randn(4, 12)
    for width in (4, 12, 16):
        found = principal_components(vectors, width)
        assert found.shape == (50, width)
        assert float(found.square().mean()) == pytest.approx(1 / width)
        ratio = torch.pdist(found) / torch.pdist(vectors)
        assert float(ratio.std() / ratio.mean()) < 1e-3
