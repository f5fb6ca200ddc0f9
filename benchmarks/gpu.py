"""Ratios of lorarec on one GPU, and the fraction of its peak: ranking, training, mixing and serving.

The models have the shapes of Qwen2.5 0.5B and 7B and random weights, which are made on the device in its data type, so
that the host needs no memory for them. Every ratio says how many times as long as lorarec the other way takes; it is
the median over rounds in which both do the same work in turn, and each is warmed up before it is timed.

    ranking    candidate sets in one pass, against one candidate at a time (the rows of a prompt as one batch, logits of
               the tokens that are read alone) and against a bare forward pass
    training   one optimizer step of LoRA with the default options, against a bare forward and backward pass with frozen
               weights (gradients of the embeddings), and against PEFT used plainly: right-padded batches in random
               order, every token projected to the vocabulary
    mixing     a forward pass with K adapters under weights for all rows or for each row, against the adapter that PEFT
               makes of them (`add_weighted_adapter` with `cat`, in the data type of the model) and against the bare one
    serving    requests with different mixtures of K adapters in one batch, against one request at a time and against
               the same batches without adapters

A bare pass has the same number of tokens and rows without padding, and projects as many tokens to the vocabulary. The
fraction of the peak counts 2 operations per weight and token for a forward pass and 4 for a training step, whose frozen
weights have no gradients; attention, adapters and recomputation are not counted. The peak is that of a large matrix
product in the same run, and the vendor's for dense matrices where it is known.

    python benchmarks/gpu.py                                                  # both models, bfloat16, CUDA
    python benchmarks/gpu.py --models tiny --device cpu --dtype float32 --token-budget 512 --prompts 4
"""

import argparse
import gc
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, cast

import torch
from device_timing import Row, Timer, Way, measured_peak, nominal_peak, way
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from lorarec.backbone import Backbone
from lorarec.lora import Adapter, AdapterBank, inject
from lorarec.prompts import Example, PromptBuilder, PromptConfig
from lorarec.scoring import evaluation_mode, pad_rows, plan_for, score, token_batches, training_mode
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest
from lorarec.training import TrainingConfig
from lorarec.training.losses import listwise, next_token
from lorarec.training.scoring_model import adapted, target_layers

TITLE_TOKENS, CANDIDATES, NEGATIVES, ROWS, IGNORED = 12, 30, 15, 8, -100
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "tie_word_embeddings"),
)
SHAPES = {
    "tiny": (16_384, 64, 128, 2, 4, 2, True),
    "0.5b": (151_936, 896, 4864, 24, 14, 2, True),
    "7b": (152_064, 3584, 18_944, 28, 28, 4, False),
}
#: Models whose training recomputes activations.
CHECKPOINTED = ("7b",)


@dataclass
class Run:
    """One model on one device with the options of the benchmark."""

    name: str
    backbone: Backbone
    options: argparse.Namespace
    timer: Timer
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def model(self) -> Any:
        return self.backbone.model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def examples(self, count: int, candidates: int, titles: int = 10) -> list[Example]:
        """Return prompts of `titles` titles, half of them more or fewer, with candidates of random tokens."""

        def title() -> list[int]:
            return [self.draw.randrange(300, 16_000) for _ in range(TITLE_TOKENS)]

        lengths = [self.draw.randint(titles // 2, titles + titles // 2) for _ in range(count)]
        return [
            Example(list(chain(*(title() for _ in range(length)))), [title() for _ in range(candidates)])
            for length in lengths
        ]

    def builder(self, readout: str) -> PromptBuilder:
        return PromptBuilder(self.backbone.tokenizer, readout)

    def flops(self, tokens: int, projected: int) -> float:
        """Return the operations of a forward pass, of which some tokens are projected to the vocabulary."""
        layers = sum(weight.numel() for name, weight in self.model.named_parameters() if ".layers." in name)
        head = self.model.get_output_embeddings().weight.numel()
        return 2.0 * (layers * tokens + head * projected)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the Trainer of transformers computes losses with `bf16`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16")

    def bare_batches(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Return random tokens, as many and in as many rows as lorarec's batches of these prompts, without padding."""
        lengths = [example.length for example in examples]
        batches = token_batches(lengths, self.options.token_budget)
        shapes = [(len(batch), -(-sum(lengths[index] for index in batch) // len(batch))) for batch in batches]
        return [torch.randint(300, 16_000, shape, device=self.device) for shape in shapes]


def ranking(run: Run) -> Iterator[Row]:
    """Candidate sets in one pass."""
    examples = run.examples(run.options.prompts, CANDIDATES)
    for readout in ("verdict", "likelihood"):
        builder = run.builder(readout)
        tokens = sum(example.length for example in examples)
        projected = CANDIDATES * TITLE_TOKENS if readout == "likelihood" else 0
        batches = run.bare_batches(examples)

        def one_pass(builder: PromptBuilder = builder) -> list[Any]:
            return score(run.model, examples, builder, run.options.token_budget)

        def one_by_one(builder: PromptBuilder = builder) -> list[torch.Tensor]:
            return [alone(run.model, example, builder) for example in examples]

        def bare(batches: list[torch.Tensor] = batches, projected: int = projected) -> None:
            for ids in batches:
                run.model(input_ids=ids, logits_to_keep=projected or 1, use_cache=False)

        with torch.inference_mode():
            pairs = zip(one_pass(), one_by_one(), strict=True)
            difference = max(float((torch.from_numpy(ours) - other.cpu()).abs().max()) for ours, other in pairs)
        others = {"one candidate at a time": way(one_by_one), "bare forward": way(bare)}
        work = len(examples), run.flops(tokens, projected * len(examples))
        yield from run.timer.compare(
            "ranking", readout, way(one_pass), others, work, {"one candidate at a time": difference}
        )


def alone(model: Any, example: Example, builder: PromptBuilder) -> torch.Tensor:
    """Return the scores of candidates that are read one at a time, as one batch of rows of equal length."""
    rows = torch.tensor([example.prompt + branch for branch in example.branches], device=model.device)
    if builder.readout == "verdict":
        yes, no = builder.yes_no
        logits = model(input_ids=rows, logits_to_keep=1, use_cache=False).logits[:, 0].float()
        return logits[:, yes] - logits[:, no]
    logits = model(input_ids=rows, logits_to_keep=TITLE_TOKENS + 1, use_cache=False).logits[:, :-1]
    targets = rows[:, -TITLE_TOKENS:, None]
    return logits.float().log_softmax(-1).gather(2, targets).sum((1, 2))


def training(run: Run) -> Iterator[Row]:
    """Optimizer steps of LoRA."""
    several, single = (run.examples(run.options.cases, candidates) for candidates in (1 + NEGATIVES, 1))
    for loss, examples in (("listwise", several), ("next-token", single)):
        config = TrainingConfig(
            readout="verdict" if loss == "listwise" else "likelihood",
            loss=loss,  # type: ignore[arg-type]
            token_budget=run.options.token_budget,
            gradient_checkpointing=run.name in CHECKPOINTED,
        )
        projected = TITLE_TOKENS if loss == "next-token" else 0
        tokens = sum(example.length for example in examples)
        others: dict[str, Way] = {"bare forward and backward": bare_step(run, examples, config, projected)}
        if loss == "next-token":
            others["PEFT"] = peft_step(run, examples, config)
        work = len(examples), 2 * run.flops(tokens, projected * len(examples))
        yield from run.timer.compare("training", loss, lora_step(run, examples, config), others, work)


def lora_step(run: Run, examples: Sequence[Example], config: TrainingConfig) -> Way:
    """lorarec's step: batches of sorted lengths, candidates in one pass, the answer's tokens projected alone."""

    @contextmanager
    def prepared() -> Iterator[Callable[[], Any]]:
        builder = run.builder(config.readout)
        batches = token_batches([example.length for example in examples], run.options.token_budget)
        with adapted(run.backbone, builder, config) as model, training_mode(model):
            optimizer = torch.optim.AdamW(trainable(model), config.learning_rate)

            def step() -> None:
                for batch in batches:
                    with run.autocast():
                        scores = model([examples[index] for index in batch])
                        loss = next_token(scores) if config.loss == "next-token" else listwise(scores, [0] * len(batch))
                    (loss / len(examples)).backward()
                optimizer.step()
                optimizer.zero_grad()

            yield step

    return prepared


def bare_step(run: Run, examples: Sequence[Example], config: TrainingConfig, projected: int) -> Way:
    """A forward pass and the backward pass to the embeddings, with the same number of tokens."""
    batches = run.bare_batches(examples)

    @contextmanager
    def prepared() -> Iterator[Callable[[], Any]]:
        def step() -> None:
            for ids in batches:
                states = run.model.get_input_embeddings()(ids).requires_grad_()
                with run.autocast():
                    logits = run.model(inputs_embeds=states, logits_to_keep=projected or 1, use_cache=False).logits
                logits.sum().backward()

        with training_mode(run.model), checkpointing(run.model, config.gradient_checkpointing):
            yield step

    return prepared


def peft_step(run: Run, examples: Sequence[Example], config: TrainingConfig) -> Way:
    """The step of a plain script with PEFT on the prompts and their first candidates."""
    rows = max(1, run.options.token_budget // max(example.length for example in examples))
    batches = [examples[start : start + rows] for start in range(0, len(examples), rows)]

    def right_padded(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        ids = pad_rows([example.prompt + example.branches[0] for example in batch], run.device)
        columns = torch.arange(ids.shape[1], device=run.device)
        starts, ends = (
            torch.tensor([[length(example)] for example in batch], device=run.device)
            for length in (lambda example: len(example.prompt), lambda example: example.length)
        )
        labels = ids.masked_fill((columns < starts) | (columns >= ends), IGNORED)
        return {"input_ids": ids, "attention_mask": (columns < ends).long(), "labels": labels}

    @contextmanager
    def prepared() -> Iterator[Callable[[], Any]]:
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=config.r,
            lora_alpha=int(config.lora_alpha),
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
        )
        model = get_peft_model(run.model, lora)
        optimizer = torch.optim.AdamW(trainable(model), config.learning_rate)

        def step() -> None:
            for batch in batches:
                with run.autocast():
                    loss = model(**right_padded(batch), use_cache=False).loss
                (loss * len(batch) / len(examples)).backward()
            optimizer.step()
            optimizer.zero_grad()

        try:
            with training_mode(model), checkpointing(run.model, config.gradient_checkpointing):
                yield step
        finally:
            model.unload()

    return prepared


def trainable(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def checkpointing(model: Any, enabled: bool) -> Iterator[None]:
    """Recompute activations in the backward pass within the block."""
    if enabled:
        model.gradient_checkpointing_enable()
    try:
        yield
    finally:
        if enabled:
            model.gradient_checkpointing_disable()


def random_adapters(run: Run, r: int = 16) -> list[Adapter]:
    """Return K adapters of all linear layers whose updates are a tenth as large as the layer's outputs."""
    modules = dict(run.model.named_modules())
    adapters = []
    for seed in range(run.options.adapters):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name in target_layers(run.model, "all-linear"):
            out, width = modules[name].weight.shape
            a = torch.randn(r, width, generator=generator) * 0.02
            tensors[name] = a, torch.randn(out, r, generator=generator) * 0.1 / (2 * r**0.5)
        adapters.append(Adapter(tensors, dict.fromkeys(tensors, 2.0)))
    return adapters


def mixing(run: Run) -> Iterator[Row]:
    """Forward passes with K adapters in the layers."""
    adapters = random_adapters(run)
    bank, count = AdapterBank.stack(adapters), len(adapters)
    ids = torch.randint(300, 16_000, (ROWS, max(1, run.options.token_budget // ROWS)), device=run.device)
    fixed = torch.arange(1.0, count + 1, device=run.device)
    fixed /= fixed.sum()

    def forward() -> torch.Tensor:
        states: torch.Tensor = plan_for(run.model).trunk(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def mixed(combine: str, weights: torch.Tensor) -> Way:
        @contextmanager
        def prepared() -> Iterator[Callable[[], Any]]:
            with torch.inference_mode(), inject(run.model, bank, combine) as model:
                model.set_weights(weights)
                yield forward

        return prepared

    @contextmanager
    def merged_by_peft() -> Iterator[Callable[[], Any]]:
        first = adapters[0]
        lora = LoraConfig(
            r=max(first.ranks.values()), lora_alpha=2 * max(first.ranks.values()), target_modules=list(first.tensors)
        )
        model = get_peft_model(run.model, lora, "0", autocast_adapter_dtype=False)
        try:
            for number in range(1, count):
                model.add_adapter(str(number), lora, autocast_adapter_dtype=False)
            with torch.no_grad():
                for (name, (a, b)), number in ((item, n) for n in range(count) for item in adapters[n].tensors.items()):
                    layer = run.model.get_submodule(name)
                    layer.lora_A[str(number)].weight.copy_(a)
                    layer.lora_B[str(number)].weight.copy_(b)
            names = [str(number) for number in range(count)]
            cast(Any, model.base_model).add_weighted_adapter(names, fixed.tolist(), "merged", combination_type="cat")
            model.set_adapter("merged")
            with torch.inference_mode():
                yield forward
        finally:
            model.unload()

    def states(chosen: Way) -> torch.Tensor:
        with chosen() as call:
            return call().float()

    others = {"PEFT's merged adapter": merged_by_peft, "bare forward": way(forward)}
    work = ids.numel(), run.flops(ids.numel(), 0)
    reference = states(merged_by_peft)
    by_row = torch.nn.functional.one_hot(torch.arange(ROWS) % count, count).float().to(run.device)
    for combine in ("factors", "deltas"):
        for setting, weights in (("all rows", fixed), ("each row", by_row)):
            chosen, differences = mixed(combine, weights), {}
            if (combine, setting) == ("deltas", "all rows"):
                off = (states(chosen) - reference).norm() / reference.norm()
                differences["PEFT's merged adapter"] = float(off)
            yield from run.timer.compare("mixing", f"{combine}, {setting}", chosen, others, work, differences)


def serving(run: Run) -> Iterator[Row]:
    """Requests with different mixtures of the adapters."""
    loaded = [LoadedAdapter(str(n), (each,), PromptConfig(), str(n)) for n, each in enumerate(random_adapters(run))]
    examples, builder = run.examples(run.options.prompts, CANDIDATES), run.builder("verdict")
    requests = []
    for number, example in enumerate(examples):
        first, second = loaded[number % len(loaded)], loaded[(number + 1) % len(loaded)]
        requests.append(ScoringRequest(example, builder, Mixture({first: 0.7, second: 0.3})))
    batches = token_batches([example.length for example in examples], run.options.token_budget)

    def served(batches: Sequence[Sequence[int]]) -> Way:
        @contextmanager
        def prepared() -> Iterator[Callable[[], Any]]:
            engine = MultiAdapterEngine(run.backbone, "deltas", loaded)
            try:
                yield lambda: [engine.score([requests[index] for index in batch]) for batch in batches]
            finally:
                engine.close()

        return prepared

    others = {
        "one request at a time": served([[index] for index in range(len(requests))]),
        "without adapters": way(lambda: score(run.model, examples, builder, run.options.token_budget)),
    }
    work = len(requests), run.flops(sum(example.length for example in examples), 0)
    yield from run.timer.compare("serving", f"{len(loaded)} adapters", served(batches), others, work)


PARTS = {"ranking": ranking, "training": training, "mixing": mixing, "serving": serving}


def random_backbone(name: str, device: str, dtype: str) -> Backbone:
    """Return a randomly initialised Qwen2 that was made on the device, with the tokenizer of the embedded backbone."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(zip(SIZES, SHAPES[name], strict=True))
    config = Qwen2Config(max_position_embeddings=32_768, **sizes)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, dtype=getattr(torch, dtype))
    model.eval().requires_grad_(False)
    tokenizer = Backbone.from_pretrained("embedded", device="cpu").tokenizer
    return Backbone(model, tokenizer, f"random-qwen2-{name}", name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["0.5b", "7b"], choices=list(SHAPES))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=64, help="candidate sets and requests of a round")
    parser.add_argument("--cases", type=int, default=32, help="training cases of a step")
    parser.add_argument("--adapters", type=int, default=4, help="adapters that are mixed and served, K")
    parser.add_argument("--token-budget", type=int, default=8192, help="tokens of a pass, padding included")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.exit(
            2,
            "no CUDA device is available: run this on a machine with a GPU and a CUDA build of torch, or try the "
            "script with --models tiny --device cpu --dtype float32\n",
        )
    device_name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    peak, nominal = measured_peak(options.device, options.dtype), nominal_peak(device_name, options.dtype)
    about = {
        "device": device_name,
        "dtype": options.dtype,
        "torch": torch.__version__,
        "measured_peak_tflops": peak / 1e12,
        "nominal_peak_tflops": None if nominal is None else nominal / 1e12,
    }
    print(json.dumps(about), flush=True)
    for name in options.models:
        backbone = random_backbone(name, options.device, options.dtype)
        run = Run(name, backbone, options, Timer(name, backbone.model.device, options.rounds, peak, nominal))
        for part in options.parts:
            try:
                with evaluation_mode(run.model):
                    for row in PARTS[part](run):
                        print(json.dumps(asdict(row)) if options.json else row, flush=True)
            except torch.OutOfMemoryError as error:
                message = f"out of memory, lower the token budget: {str(error).splitlines()[0]}"
                print(json.dumps({"model": name, "part": part, "skipped": message}), flush=True)
        del run, backbone
        gc.collect()
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
