"""Ranking with a running vLLM server, by the endpoint `/v1/completions`.

It takes token ids and returns log-probabilities, so the scores are those of PyTorch up to rounding. `/score` belongs to
classifiers and embeddings. `/generative_scoring` cuts a prompt that is too long without an error.
"""

import math
from typing import Any

from lorarec.io import JsonObject
from lorarec.prompts import PromptBuilder
from lorarec.ranking.generation import TitleList
from lorarec.ranking.server_engine import GREEDY, ServerEngine

#: vLLM writes this in place of a log-probability of minus infinity, which JSON lacks.
LEAST_LOGPROB = -9999.0
COMPLETIONS = "/v1/completions"


class VllmClient(ServerEngine):
    """A running vLLM server, for any number of `Ranker`s at once.

    Adapters are chosen by the names under which the server has loaded them (`lora-modules` of `vllm serve`).

    Args:
        backbone: The backbone that the server runs. Its tokenizer makes the prompts; its weights are used for the check
            of the scores alone.
        adapters: The adapters that will be used, or paths of their folders, by their names on the server.
        config: Options of the requests.

    Raises:
        LorarecError: The server cannot be reached, or does not serve the backbone or an adapter.

    Examples:
        >>> from lorarec import Backbone, Ranker, ServerConfig, VllmClient
        >>> backbone = Backbone.from_pretrained("embedded", device="cpu")
        >>> server = ServerConfig("http://localhost:8000")
        >>> with VllmClient(backbone, {"shop": "adapters/shop"}, server) as engine:  # doctest: +SKIP
        ...     ranked = Ranker(backbone, "adapters/shop", engine=engine).rank(["Toy Story"], ["Antz", "Heat"])
    """

    kind = "vLLM"
    default_url = "http://localhost:8000"
    room_hint = "start it with a larger max-model-len"
    adapter_hint = "start it with the adapter among its lora-modules"

    def _verdicts(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        yes, no = builder.yes_no
        wanted = {"logprobs": 2, "logprob_token_ids": [yes, no], "return_tokens_as_token_ids": True}
        choices = self._complete([prompt + branch for branch in branches], adapter, 1, wanted)
        return self._server.read(COMPLETIONS, lambda: [_log_odds(choice, yes, no) for choice in choices])

    def _likelihoods(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        choices = self._complete([prompt + branch for branch in branches], adapter, 1, {"prompt_logprobs": 0})
        pairs = zip(branches, choices, strict=True)
        return self._server.read(COMPLETIONS, lambda: [_log_probability(branch, choice) for branch, choice in pairs])

    def _next(self, titles: TitleList, adapter: str | None) -> list[int]:
        allowed = titles.allowed()
        wanted: JsonObject = {"return_token_ids": True}
        if allowed is not None:
            choices = self._complete([titles.ids], adapter, 1, wanted | {"allowed_token_ids": allowed})
        else:
            choices = self._complete([titles.ids], adapter, titles.room, wanted | {"stop_token_ids": [*titles.stop]})
        return self._server.read(COMPLETIONS, lambda: [int(token) for token in choices[0]["token_ids"]])

    def _complete(
        self, sequences: list[list[int]], adapter: str | None, max_tokens: int, options: JsonObject
    ) -> list[Any]:
        """Request completions and return a choice for each sequence."""
        body = {"model": adapter or self._model, "prompt": sequences, "max_tokens": max_tokens, **GREEDY, **options}
        answer = self._server.post(COMPLETIONS, body)

        def choices() -> list[Any]:
            by_index = {choice["index"]: choice for choice in answer["choices"]}
            return [by_index[i] for i in range(len(sequences))]

        return self._server.read(COMPLETIONS, choices)


def _log_odds(choice: Any, yes: int, no: int) -> float:
    logprobs = choice["logprobs"]["top_logprobs"][0]
    return _logprob(logprobs[f"token_id:{yes}"]) - _logprob(logprobs[f"token_id:{no}"])


def _log_probability(branch: list[int], choice: Any) -> float:
    logprobs = choice["prompt_logprobs"][-len(branch) :]
    return sum(_logprob(each[str(token)]["logprob"]) for token, each in zip(branch, logprobs, strict=True))


def _logprob(value: float) -> float:
    return float(value) if value > LEAST_LOGPROB else -math.inf
