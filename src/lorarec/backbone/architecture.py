"""The embedded backbone's shape and its start."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 4096,
    # Slow rotation: titles far apart must still match by content.
    "rope_theta": 1e6,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
}


def new_model(tokenizer: PreTrainedTokenizerBase, vectors: np.ndarray | None, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 model whose attention starts out matching equal tokens.

    In half of the heads the query and key projections start as the same random orthogonal map, so a token attends to
    tokens of similar embedding from the first step ("mimetic" initialisation, Trockman and Kolter, 2023).

    Args:
        vectors: (vocabulary, d) meanings of the tokens; their principal components become the token embeddings.
            Random when None.
    """
    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": SHAPE["rope_theta"]}
    config = Qwen2Config(
        **SHAPE,
        rope_parameters=rope,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    size = config.hidden_size // config.num_attention_heads
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            for head in range(config.num_attention_heads // 2):
                rows = slice(head * size, (head + 1) * size)
                shared = torch.linalg.qr(torch.randn(config.hidden_size, size))[0].T
                attention.q_proj.weight[rows] = shared
                attention.k_proj.weight[rows] = shared
        if vectors is not None:
            model.model.embed_tokens.weight.copy_(_principal_components(vectors, config.hidden_size))
    return model


def _principal_components(vectors: np.ndarray, size: int) -> torch.Tensor:
    """Whitened a little: components scaled by the root of their spread, so that fine distinctions keep some weight."""
    centred = torch.from_numpy(vectors - vectors.mean(0))
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:size].T / spread[:size].sqrt()
    return projected / projected.std() * SHAPE["initializer_range"]
