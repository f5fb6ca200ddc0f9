"""Item vectors from embeddings of texts, as in UniSRec (Hou et al., KDD 2022, section 2.1)."""

import torch
from torch import nn
from torch.nn.functional import normalize, softplus

from lorarec.recommenders.sequential.next_item_model import IdEmbeddings, ItemEmbeddings

#: Number of items whose vectors are computed at once.
_ITEMS_AT_ONCE = 8192


class Adaptor(nn.Module):
    """Experts, each a parametric whitening (x - b) W, and a gate that is noisy in training (section 2.1)."""

    def __init__(self, text_size: int, hidden_size: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.zeros(experts, text_size))
        self.whiten = nn.Parameter(torch.randn(experts, text_size, hidden_size) * text_size**-0.5)
        self.gate = nn.Parameter(torch.zeros(text_size, experts))
        self.noise = nn.Parameter(torch.zeros(text_size, experts))

    def weights(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the weights (n, experts) of the experts for texts (n, text_size); they sum to 1."""
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * softplus(texts @ self.noise)
        return logits.softmax(-1)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the adapted vectors (n, hidden_size) of texts (n, text_size)."""
        # The shift is the same for every row, so it is whitened once.
        whitened = torch.einsum("nh,ehw->new", self.dropout(texts), self.whiten)
        whitened = whitened - torch.einsum("eh,ehw->ew", self.shift, self.whiten)
        return (self.weights(texts)[..., None] * whitened).sum(1)


class TextItemEmbeddings(ItemEmbeddings):
    """Item vectors of length 1 from texts, and from ids after `add_ids`.

    Args:
        texts: Embeddings of the items' texts (items, text_size), which are no part of the module's state.
        hidden_size: Size of the item vectors.
        num_experts: Number of experts of the adaptor.
        dropout: Dropout probability of texts in training.
    """

    texts: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, texts: torch.Tensor, hidden_size: int, num_experts: int, dropout: float) -> None:
        super().__init__()
        text_size = texts.shape[1]
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("mean", torch.zeros(text_size))
        self.register_buffer("std", torch.ones(text_size))
        self.adaptor = Adaptor(text_size, hidden_size, num_experts, dropout)
        self.ids: IdEmbeddings | None = None

    def set_statistics(self, texts: torch.Tensor) -> None:
        """Standardise texts by the means and standard deviations of these texts from now on."""
        self.mean, self.std = texts.mean(0), texts.std(0, correction=0).clamp(min=1e-6)

    def add_ids(self, items: int, hidden_size: int) -> None:
        """Add id embeddings to the first items; they are small at first, so that the texts dominate."""
        self.ids = IdEmbeddings(items, hidden_size)
        nn.init.normal_(self.ids.table.weight, std=0.02)

    def embed(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, hidden_size) of texts (n, text_size), without those of ids."""
        return normalize(self.adaptor((texts - self.mean) / self.std), dim=-1)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """See `ItemEmbeddings.forward`."""
        # An item may occur many times in a batch; its text is adapted once.
        different, places = items.unique(return_inverse=True)
        vectors = self.embed(self.texts[different])
        if self.ids is not None:
            count = self.ids.table.num_embeddings
            ids = self.ids(different.clamp(max=count - 1)) * (different < count)[:, None]
            vectors = normalize(vectors + ids, dim=-1)
        return vectors[places]

    @torch.no_grad()
    def all(self) -> torch.Tensor:
        """See `ItemEmbeddings.all`."""
        return torch.cat([self(part) for part in torch.arange(len(self.texts)).split(_ITEMS_AT_ONCE)])


class FixedTextItems(IdEmbeddings):
    """Fixed vectors of the items of a dataset, with the weights that make vectors of later items from their texts.

    Args:
        items: Number of items.
        hidden_size: Size of the item vectors.
        from_texts: Item embeddings from texts, whose own texts are not used.

    Attributes:
        is_first: Whether each item (items,) was in the dataset of the first fit, not added by an update.
    """

    is_first: torch.Tensor

    def __init__(self, items: int, hidden_size: int, from_texts: TextItemEmbeddings) -> None:
        super().__init__(items, hidden_size)
        self.from_texts = from_texts
        self.register_buffer("is_first", torch.ones(items, dtype=torch.bool))

    @torch.no_grad()
    def embed(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, hidden_size) of texts (n, text_size)."""
        return torch.cat([self.from_texts.embed(part) for part in texts.split(_ITEMS_AT_ONCE)])
