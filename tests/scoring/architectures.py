"""Tiny random causal language models of every architecture, and scores of one candidate at a time.

`ARCHITECTURES` maps a name to what differs from the default configuration of a model type. `build` shrinks that
configuration, makes a float32 model of it and fills its matrices with weights large enough for scores to differ.
Local and sliding windows are shorter than the prompts of the tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WINDOW = 16

#: Sizes for whichever of these settings a configuration has.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_hidden_layers": 4,
    "num_layers": 4,
    "n_layer": 4,
    "n_layers": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "max_seq_len": 512,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 48,
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": WINDOW,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "rotary_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "state_size": 8,
    "mamba_chunk_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}
#: Settings that hold the size of the vocabulary.
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input")

#: Parameters that keep their own initial values: decay rates, time steps and the like.
KEPT = ("A_log", "dt_bias", "time_decay", "time_first", "recurrent_param", "rg_lru")


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix.

    Attributes:
        model_type: the type in transformers' mapping of causal language models.
        settings: what its configuration sets besides the sizes; nested configurations are dictionaries.
    """

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)


def _configuration(config_class: type[PreTrainedConfig], settings: dict[str, Any], vocabulary: int) -> PreTrainedConfig:
    """The default configuration of a class with tiny sizes, then with `settings`."""
    defaults = config_class().to_dict()
    known = defaults.keys() | getattr(config_class, "attribute_map", {}).keys()
    sizes = {**SIZES, **dict.fromkeys(VOCABULARIES, vocabulary)}
    if "kv_lora_rank" in known:  # multi-head latent attention
        sizes |= {"num_key_value_heads": sizes["num_attention_heads"], "head_dim": sizes["qk_rope_head_dim"]}
    chosen: dict[str, Any] = {name: size for name, size in sizes.items() if name in known}
    if defaults.get("layer_types") and not isinstance(getattr(config_class, "layer_types", None), property):
        kinds = list(dict.fromkeys(defaults["layer_types"]))
        chosen["layer_types"] = [kinds[i % len(kinds)] for i in range(chosen.get("num_hidden_layers", 4))]
    for name, value in settings.items():
        if isinstance(value, dict) and name in config_class.sub_configs:
            nested = type(getattr(config_class(), name) or config_class.sub_configs[name]())
            value = _configuration(nested, value, vocabulary).to_dict()
        chosen[name] = value
    return config_class(**chosen)


def build(name: str, vocabulary: int) -> PreTrainedModel:
    """The named architecture as a tiny model in evaluation mode, the same at every call."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = _configuration(CONFIG_MAPPING[architecture.model_type], architecture.settings, vocabulary)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not any(kept in parameter_name for kept in KEPT):
                parameter.normal_(0, 0.15)
    return model


def one_by_one_verdict(
    model: PreTrainedModel, prompt: list[int], branches: Sequence[list[int]], yes: int, no: int
) -> torch.Tensor:
    """Log-odds (branches,) of yes against no after prompt and branch, each branch in a forward pass of its own."""
    scores = []
    for branch in branches:
        logits = model(input_ids=torch.tensor([prompt + branch]), use_cache=False).logits[0, -1].float()
        scores.append(logits[yes] - logits[no])
    return torch.stack(scores)


def one_by_one_likelihood(model: PreTrainedModel, prompt: list[int], branches: Sequence[list[int]]) -> torch.Tensor:
    """Log-probability (branches,) of each branch after the prompt, each branch in a forward pass of its own."""
    scores = []
    for branch in branches:
        logits = model(input_ids=torch.tensor([prompt + branch]), use_cache=False).logits[0].float()
        log_probs = logits[len(prompt) - 1 : -1].log_softmax(-1)
        scores.append(log_probs.gather(1, torch.tensor(branch)[:, None]).sum())
    return torch.stack(scores)


#: An image encoder for models of several modalities; text alone does not pass through it.
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}

#: An index over the past that picks fewer positions than the prompts have. Its scores are sums over heads of rectified
#: products; with few heads many are zero at once, and which of equal positions are picked is not defined.
SPARSE: dict[str, Any] = {"index_topk": WINDOW, "index_n_heads": 16, "index_head_dim": 8}
DOTS3: dict[str, Any] = SPARSE | {
    "shared_experts_intermediate_size": 16,
    "layer_types": ["indexed_attention", "sliding_attention"] * 2,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 12,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
}
DOTS3_VISION: dict[str, Any] = {"adapter_in_dim": 16, "adapter_out_dim": 32, "mlp_layer_types": ["dense"]}
DOTS3_AUDIO: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "downsample_hidden_size": 16,
    "adapter_input_size": 16,
    "adapter_out_dim": 32,
}
GEMMA4: dict[str, Any] = {"hidden_size_per_layer_input": 8, "global_head_dim": 8}
QWEN4: dict[str, Any] = {
    "layer_types": ["linear_attention", "indexed_attention"] * 2,
    "hc_lowrank": 8,
    "ple_layer_ids": [1],
    "ngram_vocab_size_base": 64,
    "make_ngram_vocab_size_divisible_by": 8,
    "split_ngram_parts": 8,
    "heads_per_ngram": 4,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}

#: What a model type needs besides the sizes.
NEEDS: dict[str, dict[str, Any]] = {
    "axk2": SPARSE,
    "bamba": {"attn_layer_indices": [1, 3]},
    "blt": {
        "patcher_config": {},
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
        "global_config": {},
        "encoder_hash_byte_group_vocab": 64,
        "local_attention_window_len": WINDOW,
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("sliding_attention", "full_attention")
        },
    },
    "cpmant": {"dim_head": 8, "dim_ff": 48, "prompt_length": 2},
    "ctrl": {"dff": 48},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 16},
    },
    "deepseek_v32": SPARSE,
    "deepseek_v4": {"index_topk": 40, "index_n_heads": 16, "index_head_dim": 8, "o_groups": 2, "o_lora_rank": 8},
    "dots1": {"n_shared_experts": 1, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "dots3_note": {"text_config": DOTS3, "vision_config": VISION | DOTS3_VISION, "audio_config": DOTS3_AUDIO},
    "dots3_note_text": DOTS3,
    "emu3": {"text_config": {}},
    "fuyu": {"text_config": {}, "image_size": 16, "patch_size": 8},
    "gemma3": {"text_config": {}, "vision_config": VISION},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
    },
    "gemma4": {"text_config": GEMMA4, "vision_config": VISION},
    "gemma4_text": GEMMA4,
    "gemma4_unified": {
        "text_config": {"global_head_dim": 8},
        "vision_config": {"mm_embed_dim": 16, "output_proj_dims": 16, "mm_posemb_size": 8},
    },
    "gemma4_unified_text": {"global_head_dim": 8},
    "git": {"vision_config": VISION},
    "got_ocr2": {"text_config": {}, "vision_config": VISION | {"output_channels": 8, "mlp_dim": 16}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "glm_moe_dsa": SPARSE,
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hy_v4": SPARSE,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "inkling_text": {"logits_mup_width_multiplier": 2.0},
    "laguna": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4": {"text_config": {"attention_chunk_size": WINDOW}},
    "llama4_text": {"attention_chunk_size": WINDOW},
    "longcat_flash": {"head_dim": 4, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 2},
    "mamba2": {"expand": 2, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16},
    "mellum": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "minimax": {"block_size": WINDOW},
    "mllama": {"text_config": {"cross_attention_layers": [1]}},
    "modernbert-decoder": {"local_attention": 2 * WINDOW},
    "moss_transcribe_diarize": {
        "text_config": {},
        "audio_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    },
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16},
    "phi4_multimodal": {
        "vision_config": VISION | {"crop_size": 16},
        "audio_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 16,
            "depthwise_separable_out_channel": 16,
            "nemo_conv_channels": 16,
        },
    },
    "qwen3_5": {"text_config": {}},
    "qwen3_5_moe": {"text_config": {}},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": WINDOW, "lru_width": 32},
    "reformer": {
        "attn_layers": ["local", "lsh"] * 2,
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [8, 24],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
    },
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roc_bert": {
        "pronunciation_vocab_size": 16,
        "shape_vocab_size": 16,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "xlnet": {"d_inner": 48},
    "xlstm": {"hidden_size": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_key_value_heads": 4},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "chunk_size": 16, "num_mem_blocks": 1},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}

#: Model types that have no tiny model for text, and why.
UNBUILT: dict[str, str] = {
    "gemma3n": "its image encoder comes from timm",
    "gemma4_assistant": "a drafter, which reads the hidden states of another model",
    "gemma4_unified_assistant": "a drafter, which reads the hidden states of another model",
    "musicgen": "reads several codebooks of sound at once",
    "musicgen_melody": "reads several codebooks of sound at once",
}

#: Further rows: a switch of a model type that decides how its scores may be computed.
VARIANTS: dict[str, Architecture] = {
    "cohere (logit scale)": Architecture("cohere", {"logit_scale": 0.7}),
    "cohere2 (logit scale)": Architecture("cohere2", {"logit_scale": 0.7}),
    "deepseek_v32 (all positions)": Architecture("deepseek_v32", SPARSE | {"index_topk": 512}),
    "falcon (alibi)": Architecture("falcon", {"alibi": True}),
    "falcon (alibi, several heads)": Architecture("falcon", {"alibi": True, "multi_query": False}),
    "falcon (new decoder)": Architecture("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_h1 (multipliers)": Architecture(
        "falcon_h1", {"lm_head_multiplier": 0.5, "embedding_multiplier": 2.0, "key_multiplier": 0.7}
    ),
    "gemma2 (softcaps)": Architecture("gemma2", {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0}),
    "gemma3 (softcap)": Architecture(
        "gemma3", {"text_config": {"final_logit_softcapping": 2.0}, "vision_config": VISION}
    ),
    "gemma3_text (long window)": Architecture("gemma3_text", {"sliding_window": 256}),
    "gemma4 (softcap)": Architecture(
        "gemma4", {"text_config": GEMMA4 | {"final_logit_softcapping": 2.0}, "vision_config": VISION}
    ),
    "gpt_neo (all local)": Architecture("gpt_neo", {"attention_types": [[["local"], 4]], "window_size": WINDOW}),
    "granite (logits scaling)": Architecture("granite", {"logits_scaling": 3.0}),
    "granitemoehybrid (logits scaling)": Architecture(
        "granitemoehybrid", NEEDS["granitemoehybrid"] | {"logits_scaling": 3.0}
    ),
    "hyperclovax (logits scaling)": Architecture("hyperclovax", {"logits_scaling": 3.0}),
    "llama (dynamic rope)": Architecture(
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        },
    ),
    "llama (yarn)": Architecture(
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama (dynamic rope, short)": Architecture(
        "llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}
    ),
    "mistral (no window)": Architecture("mistral", {"sliding_window": None}),
    "opt (projections)": Architecture("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "mpt (alibi switched off)": Architecture("mpt", {"attn_config": {"alibi": False}}),
    "phi3 (longrope)": Architecture(
        "phi3",
        {
            "sliding_window": None,
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 2.5, 3.0, 4.0],
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "phi3 (longrope, long)": Architecture(
        "phi3",
        {
            "sliding_window": None,
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 2.5, 3.0, 4.0],
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "qwen2 (window)": Architecture("qwen2", {"use_sliding_window": True, "max_window_layers": 2, "layer_types": None}),
    "qwen3 (window)": Architecture("qwen3", {"use_sliding_window": True, "max_window_layers": 2, "layer_types": None}),
    "xlm (causal)": Architecture("xlm", {"causal": True}),
    "roberta (encoder)": Architecture("roberta", {"is_decoder": False}),
    "bert (encoder)": Architecture("bert", {"is_decoder": False}),
}

ARCHITECTURES: dict[str, Architecture] = {
    model_type: Architecture(model_type, NEEDS.get(model_type, {}))
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if model_type not in UNBUILT
} | VARIANTS

#: Rows in which a candidate has no score of its own: the logits of a token depend on later tokens, on the length of
#: the whole text or on chance.
REFUSED = {
    "bert (encoder)",
    "cpmant",
    "prophetnet",
    "reformer",
    "roberta (encoder)",
    "xlm",
    "xlnet",
}
