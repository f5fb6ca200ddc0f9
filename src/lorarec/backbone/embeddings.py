"""Item embeddings from a backbone: what the retriever compares when no others are given."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA

from lorarec.backbone.load import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import TextEncoder
from lorarec.scoring import map_batches, pad_rows, plan_for


def title_embeddings(
    backbone: Backbone, titles: Sequence[str], dimensions: int = 64, token_budget: int = 8192
) -> np.ndarray:
    """Unit vectors of titles: the last hidden states averaged over a title's tokens, then PCA (RecLoRA, 2408.03533).

    Args:
        titles: one per item, at least two.
        dimensions: fewer where the backbone's width or the number of titles is smaller.
        token_budget: tokens in one pass, padding included.

    Returns:
        (titles, dimensions) float32.

    Raises:
        LorarecError: fewer than two titles, a title without tokens, or `dimensions` below 1.
    """
    if len(titles) < 2:
        raise LorarecError(f"embeddings are compared: give two titles or more, got {len(titles)}")
    if dimensions < 1:
        raise LorarecError(f"embeddings need at least 1 dimension, got {dimensions}")
    means = mean_states(backbone, titles, token_budget)
    dimensions = min(dimensions, *means.shape)
    reduced = PCA(dimensions, svd_solver="covariance_eigh").fit_transform(means)
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    return np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 0)


@torch.no_grad()
def mean_states(
    backbone: Backbone, titles: Sequence[str], token_budget: int = 8192, progress: bool = False
) -> np.ndarray:
    """The last hidden states averaged over each title's tokens, (titles, hidden) float32.

    Args:
        progress: show a bar.

    Raises:
        LorarecError: a title without tokens.
    """
    encoder = TextEncoder(backbone.tokenizer)
    ids = [encoder.plain(title) for title in titles]
    if not all(ids):
        raise LorarecError(f"title {ids.index([])} has no tokens: give every item a title")
    model, trunk = backbone.model, plan_for(backbone.model).trunk

    def read(batch: list[int]) -> np.ndarray:
        tokens = pad_rows([ids[i] for i in batch], model.device)
        lengths = torch.tensor([len(ids[i]) for i in batch], device=model.device)
        mask = torch.arange(tokens.shape[1], device=model.device) < lengths[:, None]
        # Padding stands on the right, where no token before it can see it.
        states = trunk(input_ids=tokens, use_cache=False).last_hidden_state
        means: np.ndarray = ((states.float() * mask[..., None]).sum(1) / lengths[:, None]).cpu().numpy()
        return means

    return np.stack(map_batches(read, list(map(len, ids)), token_budget, "Reading titles", progress))
