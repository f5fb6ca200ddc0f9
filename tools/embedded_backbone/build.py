"""Training of the embedded backbone from scratch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io import (
    JsonObject,
    Progress,
    disk_errors,
    new_file,
    new_folder,
    only_writer,
    read_json,
    remove_folder,
    remove_leftovers_inside,
    write_json,
    write_text,
)
from lorarec.prompts import PromptBuilder
from tools.embedded_backbone.architecture import new_model
from tools.embedded_backbone.curriculum import draw
from tools.embedded_backbone.episodes import Catalogue
from tools.embedded_backbone.loss import add_gradient
from tools.embedded_backbone.relations import encode_texts, relate
from tools.embedded_backbone.vocabulary import train_vocabulary

#: Steps between checkpoints.
CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class BuildConfig:
    """Options of the training.

    Attributes:
        steps: Number of optimizer steps of about 3,000 tokens each.
        learning_rate: Peak learning rate: linear warm-up over 50 steps, constant, linear decay over the last quarter.
        vocabulary: Number of tokens of the vocabulary.
        snapshots: Number of intermediate models that are saved, for the learning curve.
        seed: Seed of the weights and of every batch.
    """

    steps: int = 3600
    learning_rate: float = 4e-4
    vocabulary: int = 16384
    snapshots: int = 12
    seed: int = 0


def build_backbone(
    datasets: Sequence[Dataset], out: str | Path, encoder: str | Path | None = None, options: BuildConfig | None = None
) -> Path:
    """Train the embedded backbone from scratch on general domains.

    `OUT.work` holds the work in progress; a call with the same arguments continues there. After `out` has been moved
    away, a call with more steps continues there too: the learning rate returns to its peak and decays again.

    Args:
        datasets: Datasets of general domains, never one that the backbone is to be evaluated on.
        out: Folder to make: a Hugging Face model with its tokenizer, and `build.json`.
        encoder: Folder of a sentence encoder. It relates titles by meaning, and its vectors are the first token
            embeddings; without it titles are related by shared words alone.
        options: Options of the training.

    Raises:
        LorarecError: `out` exists, a work folder of another build is in the way or another run writes to it, the
            encoder cannot be loaded, or the disk cannot be written to.
    """
    options = options or BuildConfig()
    out = Path(out)
    if out.exists():
        raise LorarecError(f"{out} exists already: choose another folder")
    work = out.with_name(out.name + ".work")
    with disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    with only_writer(work), disk_errors(work, only_disk=True):
        return _build(datasets, out, encoder, options, work)


def _build(
    datasets: Sequence[Dataset], out: Path, encoder: str | Path | None, options: BuildConfig, work: Path
) -> Path:
    remove_leftovers_inside(work)
    plan = {
        "datasets": {dataset.name: dataset.fingerprint for dataset in datasets},
        "encoder": Path(encoder).name if encoder else None,
        **asdict(options),
    }
    plan["steps"] = _steps(plan, work)
    write_json(work / "plan.json", plan)
    tokenizer = _tokenizer(datasets, encoder, options, work)
    catalogues = [_catalogue(dataset, encoder, work) for dataset in datasets]
    model = _start(tokenizer, encoder, options, work)
    tokens = _train(model, tokenizer, catalogues, options, work)
    with new_folder(out) as folder:
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "build.json", {**plan, "tokens": tokens, "parameters": model.num_parameters()})
    return out


def _steps(plan: JsonObject, work: Path) -> list[int]:
    """Return the last steps of this build and of the builds that it continues, in order."""
    if not (work / "plan.json").exists():
        return [plan["steps"]]
    before = read_json(work / "plan.json")
    *earlier, last = before["steps"]
    if before | {"steps": plan["steps"]} == plan:
        if plan["steps"] == last:
            return [*earlier, last]
        if plan["steps"] > last and _steps_done(work) == last:
            return [*earlier, last, plan["steps"]]
    raise LorarecError(f"{work} holds another build: remove it or choose another folder")


def _steps_done(work: Path) -> int:
    return torch.load(work / "state.pt", weights_only=True)["step"] if (work / "state.pt").exists() else 0


def _tokenizer(
    datasets: Sequence[Dataset], encoder: str | Path | None, options: BuildConfig, work: Path
) -> PreTrainedTokenizerFast:
    folder = work / "tokenizer"
    if not folder.exists():
        texts = [title for dataset in datasets for title in dataset.items["title"].to_list()]
        tokenizer = train_vocabulary(texts, _encoder_words(encoder), options.vocabulary)
        with new_folder(folder) as target:
            tokenizer.save_pretrained(target)
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def _encoder_words(encoder: str | Path | None) -> list[str]:
    """Return the whole words of a WordPiece vocabulary in its order, which is by frequency."""
    if encoder is None or not (Path(encoder) / "vocab.txt").exists():
        return []
    lines = (Path(encoder) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2]


def _catalogue(dataset: Dataset, encoder: str | Path | None, work: Path) -> Catalogue:
    titles = dataset.items["title"].to_list()
    index = pl.DataFrame({"item_id": dataset.items["item_id"], "row": np.arange(len(titles), dtype=np.int32)})
    sequences = dataset.interactions.join(index, on="item_id", maintain_order="left")
    grouped = sequences.group_by("user_id", maintain_order=True).agg("row")["row"].to_list()
    relations = relate(titles, encoder, work / f"relations-{dataset.name}.npz")
    return Catalogue(titles, relations, [np.array(items) for items in grouped])


def _start(
    tokenizer: PreTrainedTokenizerFast, encoder: str | Path | None, options: BuildConfig, work: Path
) -> Qwen2ForCausalLM:
    folder = work / "start"
    if not folder.exists():
        words = [str(tokenizer.decode([i])).strip() or "," for i in range(len(tokenizer))]
        vectors = encode_texts(encoder, words) if encoder is not None else None
        with new_folder(folder) as target:
            new_model(tokenizer, vectors, options.seed).save_pretrained(target)
    return Qwen2ForCausalLM.from_pretrained(str(folder), dtype=torch.float32)


def _train(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    catalogues: Sequence[Catalogue],
    options: BuildConfig,
    work: Path,
) -> int:
    builders = {r: PromptBuilder(tokenizer, r, max_title_tokens=20) for r in ("verdict", "likelihood")}
    optimizer = torch.optim.AdamW(_parameter_groups(model), lr=options.learning_rate, betas=(0.9, 0.98))
    step, tokens = _resume(model, optimizer, work)
    every = max(1, options.steps // options.snapshots)
    model.train()
    with Progress("Building", options.steps, step) as progress, open(work / "log.jsonl", "a", encoding="utf-8") as log:
        while step < options.steps:
            task, batch = draw(options.seed, step, step / options.steps, catalogues, builders)
            loss = add_gradient(model, batch)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * schedule(step, options.steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + loss.tokens
            mean = round(loss.total.item() / loss.count, 4)
            accuracy = None if loss.hits is None else loss.hits / loss.count
            row = {"step": step, "task": task, "loss": mean, "accuracy": accuracy, "tokens": tokens}
            log.write(json.dumps({**row, "norm": round(norm.item(), 3)}) + "\n")
            log.flush()
            progress.update(step, f"loss {mean:.3f} ({task})")
            if step % every == 0:  # before the checkpoint, from which a resumed run continues without this snapshot
                _snapshot(model, tokenizer, work / "snapshots" / f"{step:06d}")
            if step % CHECKPOINT_EVERY == 0 or step == options.steps:
                _checkpoint(model, optimizer, step, tokens, work)
    return tokens


def schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: warm-up, constant, linear decay to 2% over the last quarter."""
    return min(1.0, (step + 1) / 50, max(0.02, 4 * (1 - step / steps)))


def _parameter_groups(model: Qwen2ForCausalLM) -> list[dict[str, Any]]:
    """Return parameter groups with weight decay on all matrices but the embeddings."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]


def _snapshot(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    if folder.exists():  # of a run that was killed before the checkpoint of this step
        return
    with new_folder(folder) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)


def _checkpoint(model: Any, optimizer: torch.optim.Optimizer, step: int, tokens: int, work: Path) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "tokens": tokens}
    with new_file(work / "state.pt") as temporary:
        torch.save(state, temporary)


def _resume(model: Any, optimizer: torch.optim.Optimizer, work: Path) -> tuple[int, int]:
    """Load the last checkpoint and return its steps and tokens; later lines of the log are removed."""
    log = work / "log.jsonl"
    if not (work / "state.pt").exists():
        log.unlink(missing_ok=True)
        remove_folder(work / "snapshots")
        return 0, 0
    state = torch.load(work / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")][: state["step"]]
    write_text(log, "".join(line + "\n" for line in lines))
    return state["step"], state["tokens"]
