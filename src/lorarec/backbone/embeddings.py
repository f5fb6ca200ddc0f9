"""Embeddings of titles by a backbone."""

from collections.abc import Sequence

import numpy as np
import torch

from lorarec.backbone.load import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import TextEncoder
from lorarec.scoring import map_batches, pad_rows, plan_for, tokens_per_pass


def title_embeddings(
    backbone: Backbone, titles: Sequence[str], dimensions: int = 64, token_budget: int | None = None
) -> np.ndarray:
    """Return unit vectors of titles: mean hidden states of the tokens, reduced by PCA (RecLoRA, arXiv 2408.03533).

    Equal titles have equal vectors.

    Args:
        backbone: Backbone that reads the titles.
        titles: Two or more titles.
        dimensions: Maximum size of a vector; the hidden size and the number of titles limit it, too.
        token_budget: Tokens per forward pass, padding included; None for the default of the device.

    Returns:
        Array of shape (titles, dimensions), float32.

    Raises:
        LorarecError: If there are fewer than two titles, a title has no tokens, or `dimensions` is below 1.
    """
    from sklearn.decomposition import PCA  # takes a second to load

    if len(titles) < 2:
        raise LorarecError(f"embeddings are compared: give two titles or more, got {len(titles)}")
    if dimensions < 1:
        raise LorarecError(f"embeddings need at least 1 dimension, got {dimensions}")
    means = mean_states(backbone, titles, token_budget)
    dimensions = min(dimensions, *means.shape)
    reduced = PCA(dimensions, svd_solver="covariance_eigh").fit_transform(means)
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 0)
    # The rounding of a product depends on the row, so equal titles take the vector of the first one.
    first: dict[str, int] = {}
    return unit[[first.setdefault(title, row) for row, title in enumerate(titles)]]


@torch.no_grad()
def mean_states(
    backbone: Backbone, titles: Sequence[str], token_budget: int | None = None, progress: bool = False
) -> np.ndarray:
    """Return the last hidden states averaged over each title's tokens, (titles, hidden_size) float32.

    Equal titles have equal states: they are read once, since rounding depends on the other titles of a batch.

    Args:
        backbone: Backbone that reads the titles.
        titles: Titles.
        token_budget: Tokens per forward pass, padding included; None for the default of the device.
        progress: Show a progress bar on standard error.

    Raises:
        LorarecError: If a title has no tokens.
    """
    encoder = TextEncoder(backbone.tokenizer)
    different = {title: row for row, title in enumerate(dict.fromkeys(titles))}
    rows = [different[title] for title in titles]
    ids = [encoder.plain(title) for title in different]
    if not all(ids):
        raise LorarecError(f"title {rows.index(ids.index([]))} has no tokens: give every item a title")
    model, trunk = backbone.model, plan_for(backbone.model).trunk

    def read(batch: list[int]) -> np.ndarray:
        tokens = pad_rows([ids[i] for i in batch], model.device)
        lengths = torch.tensor([len(ids[i]) for i in batch], device=model.device)
        mask = torch.arange(tokens.shape[1], device=model.device) < lengths[:, None]
        # Padding is on the right, so that no token attends to it.
        states = trunk(input_ids=tokens, use_cache=False).last_hidden_state
        means: np.ndarray = ((states.float() * mask[..., None]).sum(1) / lengths[:, None]).cpu().numpy()
        return means

    budget = tokens_per_pass(model, token_budget)
    return np.stack(map_batches(read, list(map(len, ids)), budget, "Reading titles", progress))[rows]
