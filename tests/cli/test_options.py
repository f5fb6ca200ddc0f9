"""Options and checks that several verbs share."""

import gc

import pytest
import transformers.utils.logging
from huggingface_hub.utils import are_progress_bars_disabled

from lorarec.cli.options import imports_of_large_libraries, quieten_transformers
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


def test_garbage_is_collected_again_after_imports_and_after_one_that_fails() -> None:
    try:
        with imports_of_large_libraries():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        with pytest.raises(ImportError), imports_of_large_libraries():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
