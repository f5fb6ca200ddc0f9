"""Ranking through vLLM: every candidate is a sequence of its own, whose prompt vLLM computes once for all of them.

Token ids are those that the torch engine reads, and a sequence's positions are those that a branch continues, so scores
agree up to float rounding. vLLM is no dependency of lorarec; it is imported when an engine starts.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from lorarec.backbone import Backbone, Dtype
from lorarec.errors import LorarecError
from lorarec.io import track
from lorarec.lora import Adapter
from lorarec.prompts import Example, PromptBuilder
from lorarec.ranking.generation import TitleList
from lorarec.ranking.vllm_start import first_line, start_vllm

#: Examples asked for at once: enough to fill vLLM's batches, few enough that their answers fit in memory.
GROUP = 64


class VllmEngine:
    """A backbone in vLLM, for any number of `Ranker`s at once; adapters are requests, not folded weights.

    Starting takes a minute. vLLM runs the model in processes of its own, so a script must start it below
    `if __name__ == "__main__":`. Leave with `close` or a `with` block.

    Args:
        backbone: says where vLLM finds the weights (`Backbone.id`), which it loads itself; its tokenizer is used, its
            model is not.
        adapters: those that will be used; they decide the largest rank, and the longest prompt.
        dtype: of the weights, as for `Backbone.from_pretrained`.
        trust_remote_code: run code that comes with the model.
        options: further arguments of `vllm.LLM`, such as `gpu_memory_utilization` or `tensor_parallel_size`.

    Raises:
        LorarecError: vLLM is missing or cannot run this backbone, or an adapter's rank is too large for it.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapters: Sequence[Adapter] = (),
        dtype: Dtype = "auto",
        trust_remote_code: bool = False,
        **options: Any,
    ) -> None:
        self._vllm, self._llm, self.max_tokens = start_vllm(backbone, adapters, dtype, trust_remote_code, options)
        self._requests: dict[tuple[str, str], Any] = {}

    def score(
        self,
        examples: Sequence[Example],
        builder: PromptBuilder,
        adapters: Sequence[Adapter | None],
        progress: bool = False,
    ) -> list[np.ndarray]:
        """Score the candidates of many prompts.

        Args:
            adapters: of each example, None for the backbone alone; different ones share batches.

        Returns:
            One (candidates,) float32 array per example: log-odds (`verdict`) or log-probabilities (`likelihood`).

        Raises:
            LorarecError: a prompt longer than the engine was started for, or an adapter that vLLM refuses.
        """
        read = self._verdicts if builder.readout == "verdict" else self._likelihoods
        requests = [self._request(adapter) for adapter in adapters]
        results: list[np.ndarray] = []
        for group in track(list(_groups(len(examples))), "Scoring", progress):
            pairs = [(example, branch) for example in examples[group] for branch in example.branches]
            counts = [len(example.branches) for example in examples[group]]
            asked = [request for request, count in zip(requests[group], counts, strict=True) for _ in range(count)]
            scores = np.array(read(pairs, asked, builder), np.float32)
            results += np.split(scores, np.cumsum(counts)[:-1])
        return results

    def generate(
        self,
        examples: Sequence[Example],
        builder: PromptBuilder,
        adapters: Sequence[Adapter | None],
        count: int = 5,
        constrained: bool = False,
        progress: bool = False,
    ) -> list[list[int | None]]:
        """Decode a list of titles for every example greedily; see `lorarec.ranking.generate_titles`.

        All lists of a group grow together: a title at a time, or a token at a time when they are constrained.

        Raises:
            LorarecError: as for `score`, or the builder's readout is not `likelihood`.
        """
        requests = [self._request(adapter) for adapter in adapters]
        results: list[list[int | None]] = []
        for group in track(list(_groups(len(examples))), "Writing", progress):
            lists = [TitleList(builder, example, count, constrained) for example in examples[group]]
            self._require_room(max(len(each.ids) + each.ahead for each in lists))
            while unfinished := [i for i, each in enumerate(lists) if not each.done]:
                answers = self._generate(
                    [lists[i].ids for i in unfinished],
                    [self._next(lists[i]) for i in unfinished],
                    [requests[group][i] for i in unfinished],
                )
                for i, answer in zip(unfinished, answers, strict=True):
                    for token in answer.outputs[0].token_ids:
                        lists[i].add(token)
            results += [each.listed for each in lists]
        return results

    def _next(self, titles: TitleList) -> Any:
        allowed = titles.allowed()
        if allowed is not None:
            return self._sampling(1, allowed_token_ids=allowed)
        return self._sampling(titles.room, stop_token_ids=sorted(titles.stop))

    def _verdicts(
        self, pairs: list[tuple[Example, list[int]]], requests: list[Any], builder: PromptBuilder
    ) -> list[float]:
        yes, no = builder.yes_no
        answers = self._ask(pairs, requests, self._sampling(1, logprob_token_ids=[yes, no]))
        found = [answer.outputs[0].logprobs[0] for answer in answers]
        return [each[yes].logprob - each[no].logprob for each in found]

    def _likelihoods(
        self, pairs: list[tuple[Example, list[int]]], requests: list[Any], builder: PromptBuilder
    ) -> list[float]:
        """Log-probabilities of the branches' tokens.

        vLLM gives those of tokens that it computes, so it reads no cache for such requests unless told to. Told to, it
        leaves out the cached part of the prompt, which is not needed; where even a part of the branch was in the cache
        (another candidate begins alike, or the case was scored before), it is asked again without.
        """
        answers = self._ask(
            pairs, requests, self._sampling(1, prompt_logprobs=0, skip_reading_prefix_cache=False, flat_logprobs=True)
        )
        lost = [i for i, (pair, answer) in enumerate(zip(pairs, answers, strict=True)) if not _all_there(pair, answer)]
        again = self._ask(
            [pairs[i] for i in lost],
            [requests[i] for i in lost],
            self._sampling(1, prompt_logprobs=0, skip_reading_prefix_cache=True, flat_logprobs=True),
        )
        for i, answer in zip(lost, again, strict=True):
            answers[i] = answer
        return [
            sum(answer.prompt_logprobs.logprobs[-len(branch) :])
            for (_, branch), answer in zip(pairs, answers, strict=True)
        ]

    def _ask(self, pairs: list[tuple[Example, list[int]]], requests: list[Any], params: Any) -> list[Any]:
        sequences = [example.prompt + branch for example, branch in pairs]
        self._require_room(max(map(len, sequences), default=0) + 1)
        return self._generate(sequences, [params] * len(sequences), requests)

    def _generate(self, sequences: list[list[int]], params: list[Any], requests: list[Any]) -> list[Any]:
        """Sequences without an adapter go apart: on CPUs vLLM 0.32 gives them another's when one shares the step."""
        answers: list[Any] = [None] * len(sequences)
        for alone in (True, False):
            places = [i for i, request in enumerate(requests) if (request is None) == alone]
            if not places:
                continue
            found = self._llm.generate(
                [{"prompt_token_ids": sequences[i]} for i in places],
                [params[i] for i in places],
                lora_request=None if alone else [requests[i] for i in places],
                use_tqdm=False,
            )
            for i, answer in zip(places, found, strict=True):
                answers[i] = answer
        return answers

    def _sampling(self, max_tokens: int, **options: Any) -> Any:
        return self._vllm.SamplingParams(max_tokens=max_tokens, temperature=0, detokenize=False, **options)

    def _require_room(self, tokens: int) -> None:
        if tokens > self.max_tokens:
            raise LorarecError(
                f"a prompt with its answer needs {tokens} tokens, but vLLM was started for {self.max_tokens}: give it "
                "the adapters that will be used, or max_model_len"
            )

    def _request(self, adapter: Adapter | None) -> Any:
        """The LoRA request of an adapter's folder as it is, loaded at first use.

        Its name, by which vLLM tells cached prompts apart, holds its fingerprint.
        """
        if adapter is None:
            return None
        if adapter.folder is None:
            raise LorarecError("vLLM reads adapters from folders: save this one first")
        key = (str(adapter.folder.resolve()), adapter.fingerprint)
        if key not in self._requests:
            from vllm.lora.request import LoRARequest

            request = LoRARequest(" ".join(key), len(self._requests) + 1, key[0])
            try:
                self._llm.llm_engine.add_lora(request)
            except Exception as error:  # what vLLM raises here differs with how its processes are run
                raise LorarecError(f"vLLM cannot use adapter {adapter.folder}: {first_line(error)}") from error
            self._requests[key] = request
        return self._requests[key]

    def close(self) -> None:
        """End vLLM's processes."""
        self._llm.llm_engine.engine_core.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _all_there(pair: tuple[Example, list[int]], answer: Any) -> bool:
    """Whether the token before the branch was computed, and so all of the branch's log-probabilities."""
    return (answer.num_cached_tokens or 0) < len(pair[0].prompt)


def _groups(count: int) -> Iterator[slice]:
    for start in range(0, count, GROUP):
        yield slice(start, min(start + GROUP, count))
