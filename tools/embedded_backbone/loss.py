"""The loss of a batch of a training task and its gradient."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import log_softmax
from transformers import Qwen2ForCausalLM

from lorarec.prompts import Example
from lorarec.scoring import pad_rows, plan_for, score_batch, token_batches, token_log_probs
from tools.embedded_backbone.episodes import ChoiceBatch, TextBatch

#: Number of tokens of a forward and backward pass.
PASS = 1024


@dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes:
        total: Sum of the loss over cases or tokens.
        count: Number of cases or tokens.
        hits: Number of verdict prompts whose likeliest candidate has the highest score; None for other tasks.
        tokens: Number of tokens that the model read.
    """

    total: torch.Tensor
    count: int
    hits: int | None
    tokens: int


def add_gradient(model: Qwen2ForCausalLM, batch: TextBatch | ChoiceBatch) -> Loss:
    """Compute the gradient of the mean loss of a batch in the parameters' `grad`, which must be empty.

    Rows of similar length share a pass, which needs little padding and fits into a CPU's cache.
    """
    losses = []
    for part in _passes(batch):
        loss = batch_loss(model, part)
        loss.total.backward()
        losses.append(replace(loss, total=loss.total.detach()))
    count = sum(loss.count for loss in losses)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= count
    hits = [loss.hits for loss in losses if loss.hits is not None]
    total = torch.stack([loss.total for loss in losses]).sum()
    return Loss(total, count, sum(hits) if hits else None, sum(loss.tokens for loss in losses))


def _passes(batch: TextBatch | ChoiceBatch) -> Iterator[TextBatch | ChoiceBatch]:
    if isinstance(batch, TextBatch):
        for rows in token_batches([len(row) for row in batch.rows], PASS):
            yield TextBatch([batch.rows[i] for i in rows], [batch.starts[i] for i in rows])
    else:
        for rows in token_batches([example.length for example in batch.examples], PASS):
            chosen = [batch.examples[i] for i in rows], [batch.targets[i] for i in rows]
            yield ChoiceBatch(*chosen, batch.builder)


def batch_loss(model: Qwen2ForCausalLM, batch: TextBatch | ChoiceBatch) -> Loss:
    """Return the differentiable loss of a batch.

    Verdicts are trained listwise over the candidates. The likelihood readout is trained by the next-token loss of the
    likeliest title given the list, since sums of log-probabilities vary too much for a listwise loss this early.
    """
    if isinstance(batch, TextBatch):
        return _text_loss(model, batch)
    answers = [int(target.argmax()) for target in batch.targets]
    if batch.builder.readout == "likelihood":
        right = [Example(e.prompt, [e.branches[a]]) for e, a in zip(batch.examples, answers, strict=True)]
        total = torch.cat(score_batch(model, right, batch.builder)).sum()
        return Loss(-total, sum(len(e.branches[0]) for e in right), None, sum(e.length for e in right))
    scores = score_batch(model, batch.examples, batch.builder)
    targets = [torch.from_numpy(target).to(torch.float32) for target in batch.targets]
    losses = [-(t * log_softmax(s, 0)).sum() for s, t in zip(scores, targets, strict=True)]
    hits = sum(int(s.argmax()) == a for s, a in zip(scores, answers, strict=True))
    return Loss(torch.stack(losses).sum(), len(losses), hits, sum(e.length for e in batch.examples))


def _text_loss(model: Qwen2ForCausalLM, batch: TextBatch) -> Loss:
    ids = pad_rows(batch.rows, model.device)
    hidden = plan_for(model).trunk(input_ids=ids, use_cache=False).last_hidden_state
    rows = [r for r, tokens in enumerate(batch.rows) for _ in range(batch.starts[r], len(tokens))]
    columns = [c for r, tokens in enumerate(batch.rows) for c in range(batch.starts[r], len(tokens))]
    targets = ids[rows, columns]
    log_probs = token_log_probs(model, hidden[rows, [c - 1 for c in columns]], targets)
    return Loss(-log_probs.sum(), len(rows), None, sum(map(len, batch.rows)))
