"""Ranking with a running SGLang server.

`/v1/score` gives the probabilities of yes and no after each candidate, for the backbone alone: it takes no adapter.
`/generate` takes the name of an adapter and gives the log-probabilities of given tokens and of the prompt's tokens, so
it answers everything else.
"""

import math
from collections.abc import Mapping
from typing import Any

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import JsonObject
from lorarec.lora import AdapterLike
from lorarec.prompts import PromptBuilder
from lorarec.ranking.generation import TitleList
from lorarec.ranking.model_server import ServerConfig
from lorarec.ranking.server_engine import GREEDY, ServerEngine

#: Settings of a server that scores all items in one sequence with a token between them, which a title then sees.
MULTI_ITEM = ("enable_mis", "multi_item_scoring_delimiter")
GENERATE, SCORE, SERVER_INFO = "/generate", "/v1/score", "/server_info"


class SglangClient(ServerEngine):
    """A running SGLang server, for any number of `Ranker`s at once.

    Adapters are chosen by the names under which the server has loaded them (`lora-paths` of its command line).

    Args:
        backbone: The backbone that the server runs. Its tokenizer makes the prompts; its weights are used for the check
            of the scores alone.
        adapters: The adapters that will be used, or paths of their folders, by their names on the server.
        config: Options of the requests.

    Raises:
        LorarecError: The server cannot be reached, does not serve the backbone or an adapter, or puts a delimiter
            between items.

    Examples:
        >>> from lorarec import Backbone, Ranker, ServerConfig, SglangClient
        >>> backbone = Backbone.from_pretrained("embedded", device="cpu")
        >>> server = ServerConfig("http://localhost:30000")
        >>> with SglangClient(backbone, {"shop": "adapters/shop"}, server) as engine:  # doctest: +SKIP
        ...     ranked = Ranker(backbone, "adapters/shop", engine=engine).rank(["Toy Story"], ["Antz", "Heat"])
    """

    kind = "SGLang"
    default_url = "http://localhost:30000"
    room_hint = "start it with a larger context-length"
    adapter_hint = "start it with the adapter among its lora-paths"

    def __init__(
        self,
        backbone: Backbone,
        adapters: Mapping[str, AdapterLike] | None = None,
        config: ServerConfig | None = None,
    ) -> None:
        super().__init__(backbone, adapters, config)
        answer = self._server.get(SERVER_INFO)
        settings = self._server.read(SERVER_INFO, lambda: {setting: answer.get(setting) for setting in MULTI_ITEM})
        for setting, value in settings.items():
            if value is not None and value is not False:
                raise LorarecError(
                    f"{self.name} runs with {setting}={value}, which puts a token before each title, so its scores are "
                    "not exact: start it without"
                )

    def _verdicts(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        labels = list(builder.yes_no)
        if adapter is None:
            body = {"model": self._model, "query": prompt, "items": branches, "label_token_ids": labels}
            answer = self._server.post(SCORE, body | {"apply_softmax": False, "item_first": False})
            return self._server.read(SCORE, lambda: _log_odds(answer["scores"], len(branches)))
        wanted = {"logprob_start_len": -1, "token_ids_logprob": labels}
        answers = self._generate([prompt + branch for branch in branches], adapter, {"max_new_tokens": 1}, wanted)

        def read() -> list[float]:
            logprobs = [_by_token(answer["meta_info"]["output_token_ids_logprobs"][0]) for answer in answers]
            return [each[labels[0]] - each[labels[1]] for each in logprobs]

        return self._server.read(GENERATE, read)

    def _likelihoods(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        wanted = {"logprob_start_len": len(prompt) - 1}
        answers = self._generate([prompt + branch for branch in branches], adapter, {"max_new_tokens": 1}, wanted)
        pairs = zip(branches, answers, strict=True)
        return self._server.read(GENERATE, lambda: [_log_probability(branch, answer) for branch, answer in pairs])

    def _next(self, titles: TitleList, adapter: str | None) -> list[int]:
        allowed = titles.allowed()
        if allowed is not None:
            wanted = {"logprob_start_len": -1, "token_ids_logprob": allowed}
            answers = self._generate([titles.ids], adapter, {"max_new_tokens": 1}, wanted)

            def best() -> list[int]:
                logprobs = _by_token(answers[0]["meta_info"]["output_token_ids_logprobs"][0])
                return [max(allowed, key=lambda token: logprobs[token])]

            return self._server.read(GENERATE, best)
        sampling = {"max_new_tokens": titles.room, "stop_token_ids": [*titles.stop]}
        answers = self._generate([titles.ids], adapter, sampling, {})
        return self._server.read(GENERATE, lambda: _generated(answers[0], titles))

    def _generate(
        self, sequences: list[list[int]], adapter: str | None, sampling: JsonObject, options: JsonObject
    ) -> list[Any]:
        """Request continuations and return an answer for each sequence."""
        body = {"input_ids": sequences, "sampling_params": GREEDY | sampling, "return_logprob": True, **options}
        answers = self._server.post(GENERATE, body if adapter is None else body | {"lora_path": adapter})
        return self._server.read(GENERATE, lambda: [answers[i] for i in range(len(sequences))])


def _log_odds(scores: Any, count: int) -> list[float]:
    return [math.log(scores[i][0]) - math.log(scores[i][1]) for i in range(count)]


def _by_token(logprobs: Any) -> dict[int, float]:
    """Return log-probabilities by token id, from triples of a log-probability, a token id and its text."""
    return {int(token): float(logprob) for logprob, token, *_ in logprobs}


def _log_probability(branch: list[int], answer: Any) -> float:
    logprobs = answer["meta_info"]["input_token_logprobs"][-len(branch) :]
    if [token for _, token, *_ in logprobs] != branch:
        raise ValueError("other tokens than those of the prompt")
    return sum(float(logprob) for logprob, *_ in logprobs)


def _generated(answer: Any, titles: TitleList) -> list[int]:
    """Return the generated tokens with the one that ended them, which some versions leave out."""
    tokens = [int(token) for token in answer["output_ids"]]
    ended_by = answer["meta_info"]["finish_reason"].get("matched")
    if isinstance(ended_by, int) and (not tokens or tokens[-1] not in titles.stop):
        tokens.append(ended_by)
    return tokens
