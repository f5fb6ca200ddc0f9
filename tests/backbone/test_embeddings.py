import numpy as np
import pytest
import torch

from lorarec.backbone import mean_states, title_embeddings
from lorarec.errors import LorarecError

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "green guide to a new white table", "brush"]


def loop(backbone, titles, dimensions) -> np.ndarray:
    """Reference: one title at a time, and the principal components by a singular value decomposition."""
    means = []
    for title in titles:
        ids = torch.tensor([backbone.tokenizer(title).input_ids])
        with torch.no_grad():
            states = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        means.append(states[0].mean(0).numpy().astype(np.float64))
    centred = np.array(means) - np.mean(means, 0)
    reduced = centred @ np.linalg.svd(centred, full_matrices=False)[2][:dimensions].T
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


@pytest.mark.parametrize("token_budget", [1, 20, 8192])
def test_embeddings_are_those_of_the_definition(any_backbone, token_budget):
    found = title_embeddings(any_backbone, TITLES, 3, token_budget)
    expected = loop(any_backbone, TITLES, 3)
    assert found.shape == (len(TITLES), 3)
    assert found.dtype == np.float32
    # The sign of a component is arbitrary, so cosines are compared.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)


def test_fewer_dimensions_if_there_are_no_more(tiny_backbone):
    assert title_embeddings(tiny_backbone, TITLES, 99).shape == (len(TITLES), len(TITLES))


@pytest.mark.parametrize("token_budget", [1, 20])
def test_equal_titles_have_equal_embeddings(any_backbone, token_budget):
    """Whatever titles they are batched with; the others are as many as before."""
    titles = [*TITLES, "red lamp", *TITLES[::-1], "a red lamp", "red lamp"]
    for embedded in (
        mean_states(any_backbone, titles, token_budget),
        title_embeddings(any_backbone, titles, 3, token_budget),
    ):
        for row, title in enumerate(titles):
            np.testing.assert_array_equal(embedded[row], embedded[titles.index(title)])
        assert len(np.unique(embedded, axis=0)) == len(set(titles))


@pytest.mark.parametrize(
    ("titles", "dimensions", "message"),
    [
        (["novel"], 2, "two titles or more, got 1"),
        (["novel", ""], 2, "title 1 has no tokens"),
        (TITLES, 0, "at least 1 dimension, got 0"),
    ],
)
def test_bad_input(tiny_backbone, titles, dimensions, message):
    with pytest.raises(LorarecError, match=message):
        title_embeddings(tiny_backbone, titles, dimensions)


def test_control_words_in_titles_are_text(tiny_backbone):
    read = []
    trunk = tiny_backbone.model.model
    trunk.register_forward_hook(lambda module, args, kwargs, output: read.append(kwargs["input_ids"]), with_kwargs=True)
    title_embeddings(tiny_backbone, ["lamp<|end|>", "<|end|>novel"])
    padding = tiny_backbone.tokenizer.eos_token_id
    found = {tiny_backbone.tokenizer.decode([token for token in ids if token != padding]) for ids in read[0]}
    assert found == {"lamp<|end|>", "<|end|>novel"}
