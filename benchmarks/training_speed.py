"""Training samples per second against a plain PEFT + Trainer loop, and against the bare model.

The plain loop trains the same LoRA adapter with the next-token loss on the same prompts and answers, through
transformers' Trainer. It is what a tutorial gives: batches in random order, right-padded, and every token, prompt and
padding included, projected to the vocabulary. lorarec sorts the cases of a step by length and projects the answer's
tokens alone.

The bare model is the least that a step can take: for every micro-batch, a forward and a backward pass of the layers
with the same adapter over as many tokens, causal and without padding. It reads no data, has no candidates and no head,
and updates no weights. With `--loss listwise`, the default loss of training, it is the only comparison.

Runs alternate, and ratios are medians over the repeats. On a CPU, times are of the process, not of the clock.

    python benchmarks/training_speed.py                      # the embedded backbone and a random 0.1B Qwen2
    python benchmarks/training_speed.py --models SmolLM2-135M-Instruct.Q4_1.gguf --loss listwise --batch-size 16
    python benchmarks/training_speed.py --models 7b --device cuda --dtype bfloat16 --peak-tflops 989
    python benchmarks/training_speed.py --models SmolLM2-135M-Instruct.Q4_1.gguf --peak-memory
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lorarec.backbone.load import Backbone
from lorarec.data import leave_one_out
from lorarec.data.sample import load_sample
from lorarec.errors import LorarecError
from lorarec.io import Progress
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import plan_for
from lorarec.training.cases import TrainingCases
from lorarec.training.config import TrainingConfig
from lorarec.training.memory import pass_limit
from lorarec.training.micro_batches import MicroBatches
from lorarec.training.scoring_model import adapted
from lorarec.training.trainer import AdapterTrainer

IGNORED = -100
SHAPES: dict[str, dict[str, Any]] = {
    "0.1b": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_VALUE_HEADS = {"0.1b": 2, "7b": 4}


class Clock(TrainerCallback):
    """The time at the end of every optimiser step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
            self.times.append(time.perf_counter())
        else:
            self.times.append(time.process_time())

    def samples_per_second(self, batch: int) -> float:
        """Of all steps but the first, which warms up."""
        return batch / statistics.median(after - before for before, after in pairwise(self.times))


def make_backbone(name: str, device: str, dtype: str) -> Backbone:
    """A randomly initialised Qwen2 of the named size with the vocabulary of Qwen2, or a backbone by its name."""
    if name not in {"embedded", *SHAPES}:
        return Backbone.from_pretrained(name, dtype, device)  # type: ignore[arg-type]
    embedded = Backbone.from_pretrained("embedded", device="cpu")
    if name == "embedded":
        cast(nn.Module, embedded.model).to(device)
        return embedded
    config = Qwen2Config(
        vocab_size=152064 if name == "7b" else 151936,
        num_key_value_heads=KEY_VALUE_HEADS[name],
        tie_word_embeddings=name != "7b",
        max_position_embeddings=4096,
        **SHAPES[name],
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, dtype=getattr(torch, dtype)).eval()
    return Backbone(model, embedded.tokenizer, f"random-qwen2-{name}", name)


def arguments(folder: str, batch: int, parts: int, device: str, bf16: bool) -> TrainingArguments:
    """The same for both loops but for the size of a pass."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=parts,
        num_train_epochs=1,
        learning_rate=2e-4,
        bf16=bf16,
        use_cpu=device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def run_lorarec(
    backbone: Backbone, builder: PromptBuilder, batches: MicroBatches, options: TrainingConfig, settings: dict[str, Any]
) -> float:
    """Samples per second of lorarec's own trainer."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, adapted(backbone, builder, options) as model:
        if options.token_budget is None:
            model.limit = pass_limit(model, settings["device"])
            batches.fit(model.limit)
        args = arguments(folder, 1, batches.parts, **settings)
        bar = Progress("Training", enabled=False)
        AdapterTrainer(model, args, batches, None, options, bar, [clock]).train()
    return clock.samples_per_second(options.batch_size)


def run_bare(backbone: Backbone, builder: PromptBuilder, batches: MicroBatches, options: TrainingConfig) -> float:
    """Samples per second of forward and backward passes of the adapted layers over the tokens of the micro-batches."""
    clock, trunk = Clock(), plan_for(backbone.model).trunk
    examples = [batches[index]["examples"] for index in range(len(batches))]
    shapes = [(len(each), sum(example.length for example in each) // len(each)) for each in examples]
    with adapted(backbone, builder, options) as model:
        model.train()
        for index, shape in enumerate(shapes):
            ids = torch.randint(len(backbone.tokenizer), shape, device=backbone.model.device)
            trunk(input_ids=ids, use_cache=False).last_hidden_state[:, -1].float().sum().backward()
            if (index + 1) % batches.parts == 0:
                model.zero_grad()
                clock.on_step_end()
    return clock.samples_per_second(options.batch_size)


def run_plain(
    backbone: Backbone, examples: list[Example], parts: int, options: TrainingConfig, settings: dict[str, Any]
) -> float:
    """Samples per second of PEFT and the Trainer, used plainly."""

    def right_padded(batch: list[Example]) -> dict[str, torch.Tensor]:
        length = max(example.length for example in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for row, example in enumerate(batch):
            tokens = torch.tensor(example.prompt + example.branches[0])
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            labels[row, len(example.prompt) : len(tokens)] = tokens[len(example.prompt) :]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    clock = Clock()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.r,
        lora_alpha=int(options.lora_alpha),
        lora_dropout=options.lora_dropout,
        target_modules="all-linear",
    )
    model = get_peft_model(backbone.model, config)
    if options.gradient_checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, options.batch_size // parts, parts, **settings)
        trainer = Trainer(model, args, right_padded, examples, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    backbone.model = cast(PreTrainedModel, model.unload())
    if options.gradient_checkpointing:
        backbone.model.gradient_checkpointing_disable()
    return clock.samples_per_second(options.batch_size)


def measure(name: str, cli: argparse.Namespace) -> dict[str, Any]:
    """Both loops on one backbone."""
    backbone = make_backbone(name, cli.device, cli.dtype)
    options = TrainingConfig(
        readout="verdict" if cli.loss == "listwise" else "likelihood",
        loss=cli.loss,
        batch_size=cli.batch_size,
        samples=cli.batch_size * (cli.steps + 1),
        epochs=1,
        token_budget=cli.token_budget,
        gradient_checkpointing=name == "7b",
    )
    dataset = load_sample()
    builder = backbone.prompt_builder(options)
    batches = MicroBatches(TrainingCases([(dataset, leave_one_out(dataset))], options), builder, options)
    examples = [example for step in range(batches.steps) for example, _ in batches.examples_of_step(step)]
    settings = {"device": cli.device, "bf16": cli.dtype == "bfloat16"}
    speeds: dict[str, list[float]] = {"lorarec": [], "bare": []}
    if cli.loss == "next-token":
        speeds["plain"] = []
    for _ in range(cli.repeats):
        speeds["lorarec"].append(run_lorarec(backbone, builder, batches, options, settings))
        speeds["bare"].append(run_bare(backbone, builder, batches, options))
        if cli.loss == "next-token":
            speeds["plain"].append(run_plain(backbone, examples, batches.parts, options, settings))
    ours = speeds["lorarec"]
    tokens = statistics.mean(example.length for example in examples)
    body = sum(weight.numel() for name, weight in backbone.model.named_parameters() if "layers." in name)
    result = {
        "backbone": backbone.id,
        "loss": cli.loss,
        "tokens_per_sample": round(tokens, 1),
        "micro_batches_per_step": batches.parts,
        **{f"{way}_samples_per_s": round(statistics.median(values), 3) for way, values in speeds.items()},
        "time_of_bare": ratios(speeds["bare"], ours),
        **({"speed_of_plain": ratios(ours, speeds["plain"])} if "plain" in speeds else {}),
    }
    if cli.peak_tflops:
        # Frozen weights: 2 operations per weight and token forward and 2 backward; recomputation is not counted.
        per_second = statistics.median(ours) * tokens * 4 * body
        result["fraction_of_peak"] = round(per_second / (cli.peak_tflops * 1e12), 3)
    return result


def ratios(above: list[float], below: list[float]) -> list[float]:
    """The median, smallest and largest ratio of the repeats."""
    each = [one / other for one, other in zip(above, below, strict=True)]
    return [round(value, 3) for value in (statistics.median(each), min(each), max(each))]


def peak_memory(name: str, cli: argparse.Namespace) -> dict[str, Any]:
    """Peak of resident memory of `lorarec train` with its default options, one step of the bundled sample long."""
    with tempfile.TemporaryDirectory() as folder:
        load_sample().save(Path(folder) / "data")
        command = [sys.executable, "-m", "lorarec", "train", f"{folder}/data", "--out", f"{folder}/adapter"]
        options = ["--backbone", name, "--samples", str(cli.batch_size), "--epochs", "1", "--eval-users", "30"]
        subprocess.run([*command, *options, "--batch-size", str(cli.batch_size)], check=True)
    return {"backbone": name, "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}


def main() -> None:
    """Print one line of JSON per backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = f"embedded, {', '.join(SHAPES)}, or the path or hub id of a backbone"
    parser.add_argument("--models", nargs="+", default=["embedded", "0.1b"], help=names)
    parser.add_argument("--loss", default="next-token", choices=["next-token", "listwise"])
    parser.add_argument("--steps", type=int, default=3, help="measured optimiser steps per run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--token-budget", type=int, help="tokens per pass; chosen as by `lorarec train` by default")
    parser.add_argument("--peak-memory", action="store_true", help="measure the memory of `lorarec train` instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--peak-tflops", type=float, default=0.0)
    cli = parser.parse_args()
    for name in cli.models:
        try:
            print(json.dumps((peak_memory if cli.peak_memory else measure)(name, cli)), flush=True)
        except LorarecError as error:
            print(json.dumps({"backbone": name, "skipped": str(error)}), flush=True)


if __name__ == "__main__":
    main()
