"""RecFormer (Li et al., KDD 2023): items and histories are text alone, which one bidirectional Transformer reads.

Simplified: a small encoder made on the spot, whose attention is full, in place of Longformer; its word vectors start as
the principal components of the backbone's; a title is cut to a few tokens, other columns to fewer; pre-training reads a
history once for both of its tasks, with words hidden from both.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from lorarec.data import Dataset
from lorarec.io import track
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.options import takes
from lorarec.recommenders.sequential.next_item import history_scorer
from lorarec.recommenders.sequential.trainer import batches_by_length, next_item_positions
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.item_text import TokenizedItems, tokenize_items
from lorarec.recommenders.transferable.pretraining import general_log, pretrained
from lorarec.recommenders.transferable.recformer_model import (
    RecFormerConfig,
    RecFormerEncoder,
    RecFormerReader,
    latest_first,
    narrowed,
)
from lorarec.training import EarlyStopping


@takes(RecFormerConfig)
def recformer(material: TrainingData, **options: Any) -> DotProductScorer:
    """RecFormer; options of `RecFormerConfig`. Items that nobody chose are scored by their texts.

    Raises:
        LorarecError: an option out of range, or no general domain or backbone.
    """
    chosen = RecFormerConfig(**options)
    weights = pretrained(material, "recformer", chosen, lambda: pretrain(material, chosen))
    encoder = _new_encoder(material, chosen)
    encoder.load_state_dict(weights)
    words = _words([material.dataset], material, encoder, chosen)
    place = {item: place for place, item in enumerate(material.dataset.titles)}
    order = [place[item] for item in material.whole]
    reader = RecFormerReader(encoder, TokenizedItems(words.tokens[order], words.kinds[order], words.start), chosen)
    fine_tune(material, reader)
    return _scorer(material, reader)


def pretrain(material: TrainingData, options: RecFormerConfig) -> RecFormerEncoder:
    """Guess hidden words, and tell the next item from those of the batch, on all general domains (Section 2.3)."""
    torch.manual_seed(options.pretrain_seed)
    generator = np.random.default_rng(options.pretrain_seed)
    encoder = _new_encoder(material, options)
    words = _words([dataset for dataset, _ in material.general], material, encoder, options)
    _, histories = general_log(material)
    optimizer = torch.optim.Adam(encoder.parameters(), options.pretrain_lr)
    bar = track(range(options.pretrain_epochs), "Pre-training", material.progress)
    for _ in bar:
        for items, follows in _batches(histories, 1, options, generator):
            text = words.texts(items, options.length)
            shown, asked = encoder.hide(text, options.hidden)
            states = encoder(shown)
            lost = cross_entropy(encoder.guesses(states[asked]), text.tokens[asked], reduction="sum")
            different, true = follows.unique(return_inverse=True)
            vectors = encoder.vectors(words.texts(different[:, None], options.length))
            named = normalize(states[:, 0], dim=-1) @ vectors.T / options.temperature
            loss = cross_entropy(named, true) + options.words * lost / asked.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder


def fine_tune(material: TrainingData, reader: RecFormerReader) -> None:
    """Two stages (Section 2.4, algorithm 1): items are encoded anew before each epoch; then their best vectors stay.

    The softmax is over the catalogue, so an item that nobody chose is never pushed away for that.
    """
    options = reader.options
    torch.manual_seed(material.seed)
    generator = np.random.default_rng(material.seed)
    reader.encode_items()
    figures: list[float] = []
    for stage in (1, 2):
        optimizer = torch.optim.Adam(reader.encoder.parameters(), options.lr)
        best = EarlyStopping(reader, options.patience)
        if figures:
            best.ends(max(figures))
        bar = track(range(options.epochs), f"Stage {stage}", material.progress)
        for _ in bar:
            if stage == 1:
                reader.encode_items()
            _epoch(reader, material.histories, len(material.catalogue), optimizer, generator)
            if best.ends(material.figure(_scorer(material, reader))):
                break
        best.restore()
        figures = best.curve
    reader.eval()


def _epoch(
    reader: RecFormerReader,
    histories: list[np.ndarray],
    catalogue: int,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
) -> None:
    """Tell the next item from all others of the catalogue, whose vectors stay as they are."""
    reader.train()
    for items, follows in _batches(histories, reader.options.prefixes, reader.options, generator):
        states = reader.encoder.vectors(reader.texts(items))
        logits = states @ reader.vectors[:catalogue].T / reader.options.temperature
        optimizer.zero_grad()
        cross_entropy(logits, follows).backward()
        optimizer.step()


def _batches(
    histories: list[np.ndarray], prefixes: int, options: RecFormerConfig, generator: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some next items (batch,) of each history, and the items before them (batch, places), latest first.

    Args:
        prefixes: at most so many of a history.
    """
    places = [(history, end) for history in histories for end in next_item_positions(len(history), prefixes, generator)]
    before = [history[max(0, end - options.longest) : end] for history, end in places]
    follows = torch.tensor([history[end] for history, end in places])
    for part in batches_by_length([len(history) for history in before], options.batch, generator):
        yield latest_first([before[place] for place in part], options.longest), follows[part]


def _new_encoder(material: TrainingData, options: RecFormerConfig) -> RecFormerEncoder:
    material.need("backbone")
    assert material.backbone is not None
    words: Any = material.backbone.model.get_input_embeddings().weight
    return RecFormerEncoder(narrowed(words, options.width), options)


def _words(
    datasets: list[Dataset], material: TrainingData, encoder: RecFormerEncoder, options: RecFormerConfig
) -> TokenizedItems:
    assert material.backbone is not None
    return tokenize_items(datasets, material.backbone.tokenizer, encoder.start, options.tokens, options.others)


def _scorer(material: TrainingData, reader: RecFormerReader) -> DotProductScorer:
    about = f"RecFormer, text, width {reader.options.width}"
    return history_scorer(material.whole, reader.vectors, reader.queries, about)
