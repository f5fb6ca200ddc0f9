"""Scoring plans: exact ways for a model to score many candidates at once."""

import inspect
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from lorarec.errors import LorarecError

#: `tree`: a prompt and its candidates are one sequence under a tree mask. `prefix`: the prompt is read once and its
#: cached state is copied for a batch of candidates. `rows`: every candidate is a sequence with a prompt of its own.
TREE, PREFIX, ROWS = "tree", "prefix", "rows"

#: Layer types of transformers in which tokens interact only by masked attention, or not at all.
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention", "moe", "mlp", "dense", "sparse"}
#: Attention implementations that take a mask of any pattern.
MASKED = ("sdpa", "eager")
#: The arguments by which models of transformers take back the cached state that they return.
STATES = ("past_key_values", "cache_params", "state")
#: Kinds of rotary embeddings whose frequencies depend on the length of the sequence once it exceeds that of
#: pre-training.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
#: Model types with layers that carry a state which continue from it with several tokens at once. Others are given one
#: token at a time: Mamba ignores the state for several, and Mamba 2 and gated delta rules compute whole chunks of 64 to
#: 256 tokens for them. Single tokens of Nemotron-H and Zamba 2 are rounded ten times as coarsely as sequences.
READS_SEVERAL_TOKENS = {"deepseek_v4", "lfm2", "lfm2_moe", "lfm3", "nemotron_h", "zamba2"}
#: Model types that take neither a tree mask nor a copied state, and why.
ONLY_ROWS = {
    "blt": "its bytes are grouped into patches",
    "recurrent_gemma": "its layers keep their state to themselves",
    "rwkv": "it mixes up the rows of a batch of single tokens",
    "xlstm": "its cached state is of a fixed number of rows",
}
#: Model types for which no plan is exact, and why.
REFUSED = {
    "cpmant": "its tokens see later ones",
    "prophetnet": "its head reads other states than the last hidden ones",
    "reformer": "its attention hashes at random, so that the same sequence gets other scores each time",
    "xlnet": "its tokens see later ones",
}


@dataclass(frozen=True)
class ScoringPlan:
    """The way in which a model scores the candidates of a prompt.

    Attributes:
        kind: `tree`, `prefix` or `rows`.
        reason: Reason why no faster plan is exact for the model; empty for `tree`.
        trunk: The module that turns token ids into the hidden states that the model's head reads.
        state: Name of the argument by which the trunk takes back its cached state; empty if it takes none.
        takes_positions: Whether the trunk takes position ids.
        single_tokens: Whether the trunk continues from a cached state only with one token at a time.
        windows: Sizes in tokens of its sliding and chunked attention windows, smallest first.
        max_positions: Length in tokens of the longest sequence that the model is defined on, or None.
        lock: Held while the model is used, since parts of it are replaced for a moment.
    """

    kind: str
    reason: str
    trunk: nn.Module
    state: str
    takes_positions: bool
    single_tokens: bool
    windows: tuple[int, ...]
    max_positions: int | None
    lock: AbstractContextManager[Any] = field(default_factory=RLock, compare=False)


_plans: WeakKeyDictionary[nn.Module, ScoringPlan] = WeakKeyDictionary()


def plan_for(model: Any) -> ScoringPlan:
    """Return the scoring plan of a Hugging Face causal LM, which depends on its class and configuration.

    Raises:
        LorarecError: No plan is exact for the model; the message names it.

    Examples:
        >>> from transformers import MistralConfig, MistralForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = MistralForCausalLM(MistralConfig(vocab_size=16, num_key_value_heads=2, sliding_window=64, **sizes))
        >>> plan = plan_for(model)
        >>> plan.kind, plan.windows
        ('tree', (64,))
    """
    if model not in _plans:
        _plans[model] = _choose(model)
    return _plans[model]


def _choose(model: Any) -> ScoringPlan:
    config = model.config.get_text_config(decoder=True)
    trunk = _trunk(model)
    if refusal := REFUSED.get(model.config.model_type) or _not_causal(config, trunk):
        raise LorarecError(f"{model_name(model)} cannot be scored: {refusal}")
    arguments = inspect.signature(_forward_class(trunk).forward).parameters
    state = next((name for name in STATES if name in arguments), "")
    recurrent = _recurrent(model, config, trunk)
    only_rows = ONLY_ROWS.get(config.model_type, "") or _positions_from_padding(trunk)
    no_tree = only_rows or recurrent or _why_no_tree(config, trunk, arguments)
    no_prefix = only_rows or ("" if state else "it takes no cached state")
    kind = TREE if not no_tree else PREFIX if not no_prefix else ROWS
    reasons = [no_tree, no_prefix] if kind == ROWS else [no_tree]
    return ScoringPlan(
        kind,
        "; ".join(dict.fromkeys(filter(None, reasons))),
        trunk,
        state,
        takes_positions="position_ids" in arguments,
        single_tokens=bool(recurrent) and config.model_type not in READS_SEVERAL_TOKENS,
        windows=_windows(config),
        max_positions=_max_positions(model, config),
    )


def model_name(model: Any) -> str:
    """Return the name of a model in error messages: its class and model type."""
    return f"{type(model).__name__} ({model.config.model_type})"


def _trunk(model: Any) -> nn.Module:
    """Return a model without its head. Classes of encoder-decoder families wrap their decoder once more."""
    base = model.base_model
    if base is model:
        base = getattr(model, "model", model)
    decoder = getattr(base, "decoder", base)
    trunk = decoder if hasattr(decoder, "config") else base
    if trunk is model or not isinstance(trunk, nn.Module):
        raise LorarecError(f"{model_name(model)} cannot be scored: its head is not separate from the layers below it")
    return trunk


def _forward_class(trunk: nn.Module) -> Any:
    """Return the class that defines the trunk's `forward`; wrappers such as FSDP derive classes from it."""
    return next(each for each in type(trunk).__mro__ if "forward" in vars(each))


def _not_causal(config: Any, trunk: nn.Module) -> str:
    """Return why tokens of a model attend to later ones; empty if they do not."""
    makes_both = hasattr(sys.modules[_forward_class(trunk).__module__], "create_bidirectional_mask")
    if makes_both and not getattr(config, "is_decoder", True):
        return "it is an encoder, whose tokens see later ones: its configuration has is_decoder=false"
    if getattr(config, "is_causal", True) is False or getattr(config, "causal", True) is False:
        return "its tokens see later ones: its configuration switches causal attention off"
    return ""


def _positions_from_padding(trunk: nn.Module) -> str:
    """Return why the position of a token depends on more than its index, as in RoBERTa; empty if it does not."""
    if any(hasattr(module, "create_position_ids_from_input_ids") for module in trunk.modules()):
        return "its positions are counted over the tokens that are not padding"
    return ""


def _recurrent(model: Any, config: Any, trunk: nn.Module) -> str:
    """Return which layers carry a state from token to token; empty if none do."""
    others = set(getattr(config, "layer_types", None) or ()) - ATTENTION
    if others:
        return f"it has layers of type {', '.join(sorted(others))}"
    if getattr(model, "_is_stateful", False):
        return "it has recurrent layers"
    if any(isinstance(module, nn.Conv1d) for module in trunk.modules()):
        return "it has convolutions over tokens"
    return ""


def _why_no_tree(config: Any, trunk: nn.Module, arguments: Mapping[str, Any]) -> str:
    """Return why a tree mask is not exact for a model of attention layers; empty if it is."""
    if getattr(config, "alibi", False):
        return "its attention is biased by the distance in the sequence (ALiBi)"
    if "local" in getattr(config, "attention_layers", ()):
        return "its local attention depends on the index of a token, not on its position"
    if "position_ids" not in arguments:
        return "it takes no position ids"
    if not hasattr(sys.modules[_forward_class(trunk).__module__], "create_causal_mask"):
        return "it does not make its masks through transformers' mask interface"
    if config._attn_implementation not in MASKED:
        return f"{config._attn_implementation} attention takes no tree mask"
    return ""


def _windows(config: Any) -> tuple[int, ...]:
    names = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "local_attention")
    sizes = {getattr(config, name, None) for name in names}
    return tuple(sorted(size for size in sizes if isinstance(size, int) and size > 0))


def _max_positions(model: Any, config: Any) -> int | None:
    """Return the length of the longest sequence that a model is defined on.

    Learned positions end with their table. Rotary embeddings of some kinds change for every token once a sequence is
    longer than those of pre-training, so a score would depend on the length of the other candidates. Sparse attention
    that keeps the `index_topk` best tokens breaks ties by the length of the pass once a sequence has more tokens.
    """
    limits = [
        getattr(config, name, None)
        for name in ("max_position_embeddings", "max_target_positions", "max_seq_len", "index_topk")
    ]
    rope = getattr(config, "rope_parameters", None) or {}
    for each in (rope, *rope.values()):
        if isinstance(each, dict) and each.get("rope_type") in LENGTH_DEPENDENT_ROPE:
            limits += [each.get("original_max_position_embeddings")]
            limits += [getattr(config, "original_max_position_embeddings", None)]
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if hasattr(module, "create_position_ids_from_input_ids") and isinstance(table, nn.Embedding):
            limits.append(table.num_embeddings - (table.padding_idx or 0) - 1)
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)
