"""Options and checks that several verbs share."""

import transformers.utils.logging
from huggingface_hub.utils import are_progress_bars_disabled

from lorarec.cli.options import quieten_transformers
from lorarec.cli.personal import CTR_MODELS
from lorarec.ctr import MODELS


def test_bars_of_weights_go_and_bars_of_downloads_stay() -> None:
    transformers.utils.logging.enable_progress_bar()
    quieten_transformers()
    assert not transformers.utils.logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()
    transformers.utils.logging.enable_progress_bar()


def test_ctr_models_are_named_without_loading_them() -> None:
    assert tuple(MODELS) == CTR_MODELS
