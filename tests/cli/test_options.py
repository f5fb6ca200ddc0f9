"""Options and checks that several verbs share."""

import gc

import pytest

from lorarec.cli.options import imports_of_large_libraries
from lorarec.cli.personal import CTR_MODELS
from lorarec.ctr import MODELS


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
