"""Options and checks that several verbs share."""

from lorarec.cli.personal import CTR_MODELS
from lorarec.ctr import MODELS


def test_ctr_models_are_named_without_loading_them() -> None:
    assert tuple(MODELS) == CTR_MODELS
