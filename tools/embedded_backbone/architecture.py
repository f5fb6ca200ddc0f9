"""Architecture of the embedded backbone, and initial weights that already look for related titles."""

import math
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

HIDDEN, HEADS, LAYERS = 192, 3, 4
HEAD = HIDDEN // HEADS
#: Number of components of the residual stream that hold a token's meaning; the others are scratch space.
MEANING = 144
#: Scratch components of the initial circuit.
ANSWER, START, IN_BRANCH, FOUND, VERDICT, PREVIOUS = 144, 145, 146, 147, 150, 152
#: Number of components of its predecessor's meaning that a token copies.
WIDTH = 36
#: First rotary pair that turns slowly enough to compare content at a distance.
SLOW = 12
THETA = 1e7
INITIAL_RANGE = 0.05
#: Norm of a token embedding after RMS normalization.
NORM = math.sqrt(HIDDEN)
#: Factor by which a token's own components shrink, in the normalization after the first layer.
SHRUNK = 0.6


def new_model(tokenizer: PreTrainedTokenizerBase, vectors: np.ndarray | None, seed: int) -> Qwen2ForCausalLM:
    """Return a Qwen2 model whose initial attention is a circuit that compares a candidate with the tokens before it.

    Training from random weights takes a hundred million tokens to find this circuit; training from here refines it.
    Layer 1 marks the tokens after the question and copies each token's predecessor. Layer 2 compares each token with
    the list (two heads) and continues repeats (one head). Layer 3 averages the matches of a candidate at its end.

    Args:
        tokenizer: Tokenizer with the tokens `yes`, `no` and ` answer`, a word of the question; the last piece of
            ` answer` is used if it is not one token.
        vectors: (vocabulary, d) Meanings of the tokens; their principal components become the token embeddings. None
            for random embeddings.
        seed: Seed of the random weights.
    """
    torch.manual_seed(seed)
    config = Qwen2Config(
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        initializer_range=INITIAL_RANGE,
        tie_word_embeddings=True,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        _embed(model.model.embed_tokens.weight, tokenizer, vectors)
        for layer in model.model.layers:
            # The output of the random weights must stay small beside that of the circuit.
            layer.self_attn.o_proj.weight *= 0.1
            layer.mlp.down_proj.weight *= 0.1
        first, second, third = (layer.self_attn for layer in model.model.layers[:3])
        for attention in (first, second, third):
            attention.q_proj.bias.zero_()
            attention.k_proj.bias.zero_()
            attention.v_proj.bias.zero_()
        _mark_branch(first, 0)
        view = torch.linalg.qr(torch.randn(MEANING, WIDTH))[0].T
        _look_back_one(first, 1, view)
        for head in (0, 1):
            _compare(second, head)
        _continue_repeat(second, 2, view)
        _sum_up(third, 0)
    return model


def _embed(table: torch.Tensor, tokenizer: PreTrainedTokenizerBase, vectors: np.ndarray | None) -> None:
    """Set meanings of unit RMS, and single components of the tokens that control the circuit."""
    meanings = torch.randn(len(table), MEANING) if vectors is None else _principal_components(vectors)
    meanings = torch.nn.functional.normalize(meanings, dim=-1) * NORM * INITIAL_RANGE
    table.zero_()
    table[:, :MEANING] = meanings
    size = NORM * INITIAL_RANGE
    start, question = tokenizer("A").input_ids[0], tokenizer(" answer").input_ids[-1]
    yes, no = tokenizer("yes").input_ids[0], tokenizer("no").input_ids[0]
    for token, component in ((start, START), (question, ANSWER)):
        table[token] = 0
        table[token, component] = size
    for token, sign in ((yes, 1), (no, -1)):
        table[token, VERDICT : VERDICT + 2] = sign * size


def _principal_components(vectors: np.ndarray) -> torch.Tensor:
    """Return the principal components, divided by the root of their spread so that small differences count too."""
    centred = torch.from_numpy(vectors - vectors.mean(0))
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:MEANING].T / spread[:MEANING].sqrt()


def _rows(head: int) -> slice:
    return slice(head * HEAD, (head + 1) * HEAD)


def _slow_dimensions() -> list[int]:
    """Return the dimensions of a head whose rotation is slow, in both halves of the rotary pairs."""
    half = HEAD // 2
    return [*range(SLOW, half - 1), *range(half + SLOW, HEAD - 1)]


def _clear(attention: Any, head: int) -> None:
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[_rows(head)] *= 0.2


def _mark_branch(attention: Any, head: int) -> None:
    """Make every token after ` answer` attend to it and get IN_BRANCH."""
    _clear(attention, head)
    last = head * HEAD + HEAD - 1
    attention.q_proj.bias[last] = 8.0
    attention.k_proj.weight[last, ANSWER] = 10 * math.sqrt(HEAD) / 8 / NORM
    attention.v_proj.weight[head * HEAD, ANSWER] = 1 / NORM
    attention.o_proj.weight[IN_BRANCH, head * HEAD] = NORM * INITIAL_RANGE


def _look_back_one(attention: Any, head: int, view: torch.Tensor) -> None:
    """Copy the previous token's projected meaning to PREVIOUS: fast rotary pairs attend one position back."""
    _clear(attention, head)
    half, base = HEAD // 2, head * HEAD
    for pair in range(6):
        angle = THETA ** (-pair / half)
        attention.k_proj.bias[base + pair] = 6.0
        # A query that is rotated back by one step matches the key one position before it.
        attention.q_proj.bias[base + pair] = 6.0 * math.cos(angle)
        attention.q_proj.bias[base + half + pair] = -6.0 * math.sin(angle)
    attention.v_proj.weight[base : base + WIDTH, :MEANING] = view
    attention.o_proj.weight[PREVIOUS : PREVIOUS + WIDTH, base : base + WIDTH] = torch.eye(WIDTH) * INITIAL_RANGE


def _compare(attention: Any, head: int) -> None:
    """Make a token attend to tokens of similar meaning before the question, or else to the prompt's first token.

    The share of the attention to similar tokens is written to FOUND.
    """
    _clear(attention, head)
    base, slow = head * HEAD, _slow_dimensions()
    view = torch.zeros(len(slow), MEANING)
    offset = head * len(slow)
    view[torch.arange(len(slow)), offset + torch.arange(len(slow))] = 1
    scale = math.sqrt(12 * math.sqrt(HEAD) / ((SHRUNK * NORM) ** 2 * len(slow) / MEANING))
    rows = [base + dimension for dimension in slow]
    attention.q_proj.weight[rows, :] = 0
    attention.k_proj.weight[rows, :] = 0
    for row, direction in zip(rows, view, strict=True):
        attention.q_proj.weight[row, :MEANING] = scale * direction
        attention.k_proj.weight[row, :MEANING] = scale * direction
    last = base + HEAD - 1
    attention.q_proj.bias[last] = 8.0
    attention.k_proj.weight[last, IN_BRANCH] = -20 * math.sqrt(HEAD) / 8 / NORM * 2
    attention.k_proj.weight[last, START] = 7.5 * math.sqrt(HEAD) / 8 / (SHRUNK * NORM)
    attention.v_proj.bias[base] = 1.0
    attention.v_proj.weight[base, START] = -1 / (SHRUNK * NORM)
    attention.o_proj.weight[FOUND + head, base] = NORM * INITIAL_RANGE


def _continue_repeat(attention: Any, head: int, view: torch.Tensor) -> None:
    """Make a token attend to the successor of its earlier occurrence and predict it, or attend to the first token."""
    _clear(attention, head)
    base = head * HEAD
    rows = [base + dimension for dimension in _slow_dimensions()[:WIDTH]]
    scale = 2.3
    attention.q_proj.weight[rows, :] = 0
    attention.k_proj.weight[rows, :] = 0
    attention.q_proj.weight[rows, :MEANING] = scale * view
    attention.k_proj.weight[rows, PREVIOUS : PREVIOUS + WIDTH] = scale * torch.eye(WIDTH)
    last = base + HEAD - 1
    attention.q_proj.bias[last] = 8.0
    attention.k_proj.weight[last, START] = 7.5 * math.sqrt(HEAD) / 8 / (SHRUNK * NORM)
    content = torch.linalg.qr(torch.randn(MEANING, HEAD))[0].T
    attention.v_proj.weight[_rows(head), :MEANING] = content
    attention.o_proj.weight[:MEANING, _rows(head)] = content.T * INITIAL_RANGE * 3


def _sum_up(attention: Any, head: int) -> None:
    """Write the mean of FOUND over a branch to VERDICT."""
    _clear(attention, head)
    base = head * HEAD
    last = base + HEAD - 1
    attention.q_proj.bias[last] = 8.0
    attention.k_proj.weight[last, IN_BRANCH] = 12 * math.sqrt(HEAD) / 8 / NORM * 2
    for view in (0, 1):
        attention.v_proj.weight[base + view, FOUND + view] = 1 / NORM * 3
        attention.o_proj.weight[VERDICT + view, base + view] = NORM * INITIAL_RANGE
