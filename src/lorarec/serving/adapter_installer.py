"""Installation of adapters in the model of a service, with a test of each new one."""

import copy
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest

#: Maximum length of the history in the request that tests a new adapter.
TEST_HISTORY = 100


class AdapterInstaller:
    """Install adapters in a model, and test each new one by a request before clients get it.

    Args:
        engine: Model that scores with the adapters.
        dataset: Dataset whose titles the test requests have.
    """

    def __init__(self, engine: MultiAdapterEngine, dataset: Dataset) -> None:
        self._engine = engine
        self._dataset = dataset
        # Tokenizers are not thread-safe, and requests use the backbone's in another thread.
        self._tokenizer = copy.deepcopy(engine.backbone.tokenizer)

    def test_request(self, adapter: LoadedAdapter) -> ScoringRequest:
        """Build a request with two candidates for an adapter, prompted as its record says.

        Raises:
            LorarecError: If no prompt can be built with the recorded options.
        """
        prompt = adapter.prompt
        builder = PromptBuilder(
            self._tokenizer, prompt.readout, prompt.template, prompt.max_tokens, prompt.max_title_tokens
        )
        titles = list(islice(self._dataset.titles.values(), 2))
        example = builder.example([titles[0]] * min(prompt.max_history, TEST_HISTORY), titles)
        router = adapter.user_router
        mixture = Mixture({adapter: 1.0}, {adapter: router.weights(None)} if router else {})
        return ScoringRequest(example, builder, mixture, cached=False)

    def install(self, installed: Sequence[LoadedAdapter], tests: Mapping[LoadedAdapter, ScoringRequest]) -> None:
        """Install further adapters in the model and score a request with each; on failure they are removed again.

        Args:
            installed: Adapters that the model has already.
            tests: Request to score with each new adapter.

        Raises:
            LorarecError: If the adapters cannot be combined, or the scores of one are NaN or infinite.
        """
        self._engine.install([*installed, *tests])
        try:
            for adapter, request in tests.items():
                if not np.isfinite(self._engine.score([request])[0]).all():
                    raise LorarecError(
                        f"the scores of {adapter.name} are NaN or infinite: train it with a lower learning_rate"
                    )
        except BaseException:
            self._engine.install(installed)
            raise
