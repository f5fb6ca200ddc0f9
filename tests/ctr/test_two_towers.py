"""Two towers of texts: they learn taste from titles, batches do not matter, and the seed decides."""

import numpy as np
import torch

from lorarec.ctr import CTRConfig, fit_two_towers
from lorarec.data.click_logs import click_log
from lorarec.metrics.classification import auc


def test_taste_is_learnt_from_texts(tiny_backbone, taste):
    log = click_log(taste)
    towers = fit_two_towers(tiny_backbone, log, CTRConfig(epochs=20, patience=20, batch_size=32, learning_rate=1e-2))
    test = log.rows("test")
    scores = towers.score(test)
    assert auc(scores, log.label[test]) > 0.8
    np.testing.assert_allclose(scores, [towers.score(test[[row]])[0] for row in range(len(test))], atol=1e-6)


def test_same_seed_same_towers(tiny_backbone, taste):
    log = click_log(taste)
    one, same, other = (
        fit_two_towers(tiny_backbone, log, CTRConfig(epochs=1, seed=seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["item.weight"], other["item.weight"])
