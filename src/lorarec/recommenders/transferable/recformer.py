"""RecFormer (Li et al., KDD 2023): items and histories are texts, which one bidirectional Transformer encodes.

Simplified: a small encoder with full attention and random initial weights instead of Longformer, whose word embeddings
start as the principal components of the backbone's; titles are truncated to a few tokens, other columns to fewer;
pre-training reads a history once for both of its tasks, with tokens masked for both.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from lorarec.data import Dataset
from lorarec.io import track
from lorarec.recommenders.dot_product import DotProductScorer, history_scorer
from lorarec.recommenders.early_stopping import CHECKED_CASES, EarlyStopping, refuse_divergence
from lorarec.recommenders.recommender import Requirement, ScorerRecommender
from lorarec.recommenders.sequential.trainer import batches_by_length, next_item_positions
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.item_text import TokenizedItems, tokenize_items
from lorarec.recommenders.transferable.pretraining import (
    general_histories,
    needed_domains,
    pretrained_weights,
    with_domains,
)
from lorarec.recommenders.transferable.recformer_model import (
    RecFormerConfig,
    RecFormerEncoder,
    RecFormerModel,
    latest_first,
    principal_components,
)
from lorarec.scoring import evaluation_mode


class RecFormer(ScorerRecommender[RecFormerConfig]):
    """Text-only sequential recommendation. Items without training interactions are scored by their texts."""

    config_class = RecFormerConfig
    scores_new_items = True

    @property
    def embeds_with_backbone(self) -> bool:
        """Whether `fit` embeds texts with `TrainingData.backbone`."""
        return True

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return super().requirements | needed_domains(self.config)

    def fit(self, data: TrainingData) -> Self:
        """Pre-train on the general domains, or read the cached weights, and fine-tune on the training histories.

        Raises:
            LorarecError: Pre-training has no general domain, or the data have no backbone.
        """
        config = self.config
        data = with_domains(data, config)
        weights = pretrained_weights(data, "recformer", config, lambda: pretrain(data, config))
        encoder = _new_encoder(data, config)
        encoder.load_state_dict(weights)
        texts = _tokenize([data.dataset], data, encoder, config)
        position = {item: position for position, item in enumerate(data.dataset.titles)}
        order = [position[item] for item in data.item_index]
        texts = TokenizedItems(texts.tokens[order], texts.kinds[order], texts.start)
        model = RecFormerModel(encoder, texts, config)
        fine_tune(data, model)
        self.scorer = _scorer(data, model)
        return self


def pretrain(data: TrainingData, config: RecFormerConfig) -> RecFormerEncoder:
    """Pre-train on the general domains by masked language modelling and the item-item contrast (section 2.3)."""
    torch.manual_seed(config.pretrain_seed)
    generator = np.random.default_rng(config.pretrain_seed)
    encoder = _new_encoder(data, config)
    texts = _tokenize([dataset for dataset, _ in data.general], data, encoder, config)
    _, histories = general_histories(data)
    checked = torch.arange(min(len(texts.tokens), CHECKED_CASES))[:, None]
    optimizer = torch.optim.Adam(encoder.parameters(), config.pretrain_learning_rate)
    for _ in track(range(config.pretrain_epochs), "Pre-training", data.progress):
        for items, next_items in _batches(histories, 1, config, generator):
            text = texts.concatenate(items, config.max_tokens)
            masked, selected = encoder.mask_tokens(text, config.mask_ratio)
            states = encoder(masked)
            token_logits = encoder.token_logits(states[selected])
            masked_loss = cross_entropy(token_logits, text.tokens[selected], reduction="sum")
            different, target = next_items.unique(return_inverse=True)
            vectors = encoder.vectors(texts.concatenate(different[:, None], config.max_tokens))
            logits = normalize(states[:, 0], dim=-1) @ vectors.T / config.temperature
            count = selected.sum().clamp(min=1)
            loss = cross_entropy(logits, target) + config.masked_weight * masked_loss / count
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with evaluation_mode(encoder), torch.no_grad():
            vectors = encoder.vectors(texts.concatenate(checked, config.max_tokens))
        refuse_divergence(encoder, "RecFormer", vectors)
    return encoder


def fine_tune(data: TrainingData, model: RecFormerModel) -> None:
    """Fine-tune in two stages (section 2.4, algorithm 1).

    In the first stage items are encoded anew before each epoch; in the second their best vectors are fixed. The softmax
    is over items with training interactions, so that items without any are not used as negatives. Without validation
    cases, the vectors and the weights of the last epoch are taken for the best.
    """
    config = model.config
    torch.manual_seed(data.seed)
    generator = np.random.default_rng(data.seed)
    model.encode_items()
    checked = [history for history in data.histories if len(history)][:CHECKED_CASES]
    best: list[float] = []
    for stage in (1, 2):
        optimizer = torch.optim.Adam(model.encoder.parameters(), config.learning_rate)
        stopping = EarlyStopping(model, config.patience)
        if best:
            stopping.step(max(best))
        for _ in track(range(config.epochs), f"Stage {stage}", data.progress):
            if stage == 1:
                model.encode_items()
            _train_epoch(model, data.histories, len(data.train_items), optimizer, generator)
            refuse_divergence(model, "RecFormer", model.queries(checked) @ model.vectors.T)
            if data.has_validation_cases and stopping.step(data.validation_ndcg(_scorer(data, model))):
                break
        stopping.restore()
        best = stopping.curve
    model.eval()


def _train_epoch(
    model: RecFormerModel,
    histories: list[np.ndarray],
    train_items: int,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
) -> None:
    """Learn to predict the next item among all items with training interactions, whose vectors are fixed."""
    model.train()
    for items, next_items in _batches(histories, model.config.prefixes, model.config, generator):
        states = model.encoder.vectors(model.text(items))
        logits = states @ model.vectors[:train_items].T / model.config.temperature
        optimizer.zero_grad()
        cross_entropy(logits, next_items).backward()
        optimizer.step()


def _batches(
    histories: list[np.ndarray], prefixes: int, config: RecFormerConfig, generator: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the items before some next items (batch, positions), latest first, and these next items (batch,).

    Args:
        prefixes: Maximum number of next items of a history.
    """
    places = [(history, end) for history in histories for end in next_item_positions(len(history), prefixes, generator)]
    before = [history[max(0, end - config.max_history) : end] for history, end in places]
    next_items = torch.tensor([history[end] for history, end in places])
    for batch in batches_by_length([len(history) for history in before], config.batch_size, generator):
        yield latest_first([before[place] for place in batch], config.max_history), next_items[batch]


def _new_encoder(data: TrainingData, config: RecFormerConfig) -> RecFormerEncoder:
    data.require("backbone")
    assert data.backbone is not None
    words: Any = data.backbone.model.get_input_embeddings().weight
    return RecFormerEncoder(principal_components(words, config.hidden_size), config)


def _tokenize(
    datasets: list[Dataset], data: TrainingData, encoder: RecFormerEncoder, config: RecFormerConfig
) -> TokenizedItems:
    assert data.backbone is not None
    limits = config.max_title_tokens, config.max_field_tokens
    return tokenize_items(datasets, data.backbone.tokenizer, encoder.start, *limits)


def _scorer(data: TrainingData, model: RecFormerModel) -> DotProductScorer:
    about = f"RecFormer, text, hidden size {model.config.hidden_size}"
    return history_scorer(data.item_index, model.vectors, model.queries, about)
