import torch
from torch import nn

from lorarec.recommenders.early_stopping import EarlyStopping


def test_the_first_of_the_best_epochs_is_restored_and_patience_counts_from_it() -> None:
    model = nn.Linear(1, 1)
    best = EarlyStopping(model, patience=2)
    ended = []
    for epoch, figure in enumerate([0.1, 0.5, 0.5, 0.4]):
        with torch.no_grad():
            model.weight.fill_(epoch)
        ended.append(best.step(figure))
    best.restore()
    assert ended == [False, False, False, True]
    assert model.weight.item() == 1
    assert best.curve == [0.1, 0.5, 0.5, 0.4]


def test_without_an_epoch_the_model_keeps_its_weights() -> None:
    model = nn.Linear(1, 1)
    before = model.weight.detach().clone()
    EarlyStopping(model, patience=1).restore()
    assert torch.equal(model.weight, before)
