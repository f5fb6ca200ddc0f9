"""Ranking with vLLM: every candidate is a sequence, and vLLM computes the common prompt once.

The token ids and positions are those of the torch engine, so the scores agree up to rounding. vLLM is not a dependency
of lorarec; it is imported when an engine starts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lorarec.backbone import Backbone, Dtype
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterLike, read_adapter
from lorarec.prompts import Example, PromptBuilder
from lorarec.ranking.engine import Engine, for_each_adapter
from lorarec.ranking.generation import TitleList
from lorarec.ranking.vllm_start import adapted_names, first_line, require_vllm, start_vllm


class VllmEngine(Engine):
    """A backbone that runs in vLLM, for any number of `Ranker`s at once.

    Adapters are sent with the requests as LoRA requests and are not merged into the weights. The start takes a minute.
    vLLM runs the model in processes of its own, so a script must start it below `if __name__ == "__main__":`. `close`,
    or the end of a `with` block, ends these processes.

    Args:
        backbone: The backbone, idle: no open ranker has merged an adapter into it. vLLM loads the weights itself from
            `Backbone.id`; those of the backbone are used for the check of the scores alone.
        adapters: The adapters that will be used, or paths of their folders. They determine the largest rank, the
            longest prompt, and the layers on which adapters can be.
        dtype: The data type of the weights, as for `Backbone.from_pretrained`.
        trust_remote_code: Whether to run Python code that comes with the model.
        llm_options: Further arguments of `vllm.LLM`, such as `gpu_memory_utilization` or `tensor_parallel_size`.
        free_weights: Whether to free the backbone's own weights before vLLM starts; its shapes are kept.

    Raises:
        LorarecError: vLLM is missing or cannot run this backbone, or the rank of an adapter is too large for it.

    Examples:
        >>> from lorarec import Backbone, Ranker, VllmEngine
        >>> backbone = Backbone.from_pretrained("embedded", device="cpu")
        >>> with VllmEngine(backbone, ["adapters/shop"]) as engine:  # doctest: +SKIP
        ...     ranked = Ranker(backbone, "adapters/shop", engine=engine).rank(["Toy Story"], ["Antz", "Heat"])
    """

    name = "vLLM"
    room_hint = "give VllmEngine the adapters that will be used, or max_model_len among its llm_options"

    def __init__(
        self,
        backbone: Backbone,
        adapters: Sequence[AdapterLike] = (),
        dtype: Dtype = "auto",
        trust_remote_code: bool = False,
        llm_options: Mapping[str, Any] | None = None,
        free_weights: bool = False,
    ) -> None:
        require_vllm()
        read = [read_adapter(adapter, backbone) for adapter in adapters]
        super().__init__(backbone, read)
        if free_weights:
            backbone.model.to("meta")  # type: ignore[arg-type]
        started = start_vllm(backbone, read, dtype, trust_remote_code, llm_options or {})
        self._vllm, self._llm, self.max_tokens = started
        self._adaptable = adapted_names(read)
        self._requests: dict[tuple[str, str], Any] = {}

    def _score(
        self, examples: Sequence[Example], builder: PromptBuilder, adapters: Sequence[Adapter | None]
    ) -> list[np.ndarray]:
        read = self._verdicts if builder.readout == "verdict" else self._likelihoods
        counts = [len(example.branches) for example in examples]
        pairs = [(example, branch) for example in examples for branch in example.branches]
        requests = for_each_adapter(adapters, self._request)
        repeated = [request for request, count in zip(requests, counts, strict=True) for _ in range(count)]
        scores = np.array(read(pairs, repeated, builder), np.float32)
        return np.split(scores, np.cumsum(counts))[:-1]

    def _extend(self, lists: Sequence[TitleList], adapters: Sequence[Adapter | None]) -> list[Sequence[int]]:
        params = [self._next_tokens(each) for each in lists]
        outputs = self._generate([each.ids for each in lists], params, for_each_adapter(adapters, self._request))
        return [output.outputs[0].token_ids for output in outputs]

    def _next_tokens(self, titles: TitleList) -> Any:
        """Return the sampling parameters for the next token of a constrained list, or the next title of another."""
        allowed = titles.allowed()
        if allowed is not None:
            return self._greedy(1, {"allowed_token_ids": allowed})
        return self._greedy(titles.room, {"stop_token_ids": sorted(titles.stop)})

    def _verdicts(
        self, pairs: list[tuple[Example, list[int]]], requests: list[Any], builder: PromptBuilder
    ) -> list[float]:
        yes, no = builder.yes_no
        outputs = self._run_pairs(pairs, requests, self._greedy(1, {"logprob_token_ids": [yes, no]}))
        logprobs = [output.outputs[0].logprobs[0] for output in outputs]
        return [each[yes].logprob - each[no].logprob for each in logprobs]

    def _likelihoods(
        self, pairs: list[tuple[Example, list[int]]], requests: list[Any], builder: PromptBuilder
    ) -> list[float]:
        """Return the log-probabilities of the branches.

        vLLM returns the log-probabilities of tokens that it computes, so by default it does not read the prefix cache
        for such requests. Here it reads the cache, and leaves out the cached part of the prompt, which is not needed.
        If a part of the branch was in the cache as well (another candidate begins with the same tokens, or the case was
        scored before), the sequence is computed again without the cache.
        """
        outputs = self._run_pairs(pairs, requests, self._prompt_logprobs(read_cache=True))
        lost = [
            i for i, (pair, output) in enumerate(zip(pairs, outputs, strict=True)) if not _is_complete(pair, output)
        ]
        again = self._run_pairs(
            [pairs[i] for i in lost], [requests[i] for i in lost], self._prompt_logprobs(read_cache=False)
        )
        for i, output in zip(lost, again, strict=True):
            outputs[i] = output
        return [
            sum(output.prompt_logprobs.logprobs[-len(branch) :])
            for (_, branch), output in zip(pairs, outputs, strict=True)
        ]

    def _run_pairs(self, pairs: list[tuple[Example, list[int]]], requests: list[Any], params: Any) -> list[Any]:
        sequences = [example.prompt + branch for example, branch in pairs]
        return self._generate(sequences, [params] * len(sequences), requests)

    def _generate(self, sequences: list[list[int]], params: list[Any], requests: list[Any]) -> list[Any]:
        """Run sequences, those without an adapter apart, since vLLM 0.32 on CPUs applies another's adapter to them."""
        outputs: list[Any] = [None] * len(sequences)
        for without_adapter in (True, False):
            places = [i for i, request in enumerate(requests) if (request is None) == without_adapter]
            if not places:
                continue
            outputs_of_group = self._llm.generate(
                [{"prompt_token_ids": sequences[i]} for i in places],
                [params[i] for i in places],
                lora_request=None if without_adapter else [requests[i] for i in places],
                use_tqdm=False,
            )
            for i, output in zip(places, outputs_of_group, strict=True):
                outputs[i] = output
        return outputs

    def _greedy(self, max_tokens: int, options: Mapping[str, Any]) -> Any:
        return self._vllm.SamplingParams(max_tokens=max_tokens, temperature=0, detokenize=False, **options)

    def _prompt_logprobs(self, read_cache: bool) -> Any:
        options = {"prompt_logprobs": 0, "skip_reading_prefix_cache": not read_cache, "flat_logprobs": True}
        return self._greedy(1, options)

    def _request(self, adapter: Adapter | None) -> Any:
        """Return the LoRA request of an adapter's folder, which is loaded at first use.

        vLLM distinguishes cached prompts by the name of the request, so the name includes the adapter's fingerprint.
        """
        if adapter is None:
            return None
        assert adapter.folder is not None  # `Engine` refuses others
        key = (str(adapter.folder.resolve()), adapter.fingerprint)
        if key not in self._requests:
            if unknown := sorted(adapted_names([adapter]) - self._adaptable):
                raise LorarecError(
                    f"vLLM cannot use adapter {adapter.folder}: it is on layers that vLLM was not started for "
                    f"({', '.join(unknown)}): give VllmEngine the adapters that will be used"
                )
            from vllm.lora.request import LoRARequest

            request = LoRARequest(" ".join(key), len(self._requests) + 1, key[0])
            try:
                self._llm.llm_engine.add_lora(request)
            except Exception as error:  # The type depends on how vLLM runs its processes.
                raise LorarecError(f"vLLM cannot use adapter {adapter.folder}: {first_line(error)}") from error
            self._requests[key] = request
        return self._requests[key]

    def close(self) -> None:
        """End vLLM's processes."""
        self._llm.llm_engine.engine_core.shutdown()


def _is_complete(pair: tuple[Example, list[int]], output: Any) -> bool:
    """Return whether the token before the branch was computed, and so all log-probabilities of the branch."""
    return (output.num_cached_tokens or 0) < len(pair[0].prompt)
