"""Tiny models, random adapters, and datasets that several tests share."""

import copy
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.data.click_logs import ClickLog, click_log
from lorarec.io.artefacts import write_json
from lorarec.lora import Adapter, read_adapter
from lorarec.lora.target_layers import dimensions, linear_layers
from lorarec.recommenders import TrainingData
from lorarec.training import TrainingConfig, train

#: What an architecture needs beside the sizes that all have.
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
    "gpt2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2, "max_position_embeddings": 2048},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {
        "num_key_value_heads": 2,
        "block_types": ["recurrent", "attention"],
        "lru_width": 32,
        "attention_window_size": 16,
        "head_dim": 8,
    },
}
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # large enough for scores to differ
    "bos_token_id": None,
    "eos_token_id": 0,
}
#: Words of the titles and of the prompts of `hot_log`.
_ADJECTIVES = ["red", "green", "blue", "small", "large", "old", "new", "hot", "cold", "dry"]
_THINGS = ["lamp", "chair", "table", "plate"]
_PROMPT_WORDS = (
    "A user chose, in this order: Would the user choose this next? Answer yes or no. One of these comes - Which"
)
#: Kinds of films in a planted click log, and number of films.
KINDS, FILMS = 5, 20

#: Parts of the names of Llama's tensors in transformers -> in GGUF, in the order in which they are replaced.
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.layers": "blk",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
}

#: Options of a training that takes a second and changes the scores of a tiny backbone.
QUICK: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "negatives": 3,
    "r": 2,
    "learning_rate": 0.05,
    "evidence": False,
    "eval_users": 8,
}
#: User, item, timestamp and, where it is known, rating.
Row = tuple[str, str, int] | tuple[str, str, int, float | None]
#: Whether an item is liked, from (gender, age) of the user, the kinds of the items before and its own kind.
LikingRule = Callable[[tuple[int, int], list[int], int], bool]


def tiny_model(architecture: str, vocab_size: int, seed: int = 0, **config: Any) -> Any:
    """Build a random causal language model of two layers.

    Args:
        architecture: Model type of transformers, such as "qwen2".
        vocab_size: Number of tokens.
        seed: Seed of the weights.
        config: Further arguments of the configuration; they replace those of the factory.
    """
    torch.manual_seed(seed)
    chosen = _SIZES | _ARCHITECTURES.get(architecture, {}) | config
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, vocab_size=vocab_size, **chosen)).eval()
    if architecture == "recurrent_gemma":  # its own scale of initial weights is too small for scores to differ
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def tiny_tokenizer(texts: Iterable[str], end_token: str | None = "<|end|>") -> PreTrainedTokenizerFast:
    """Train byte-level BPE of up to 400 tokens on texts; the end token is also the padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[] if end_token is None else [end_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end_token, pad_token=end_token)


def make_backbone(architecture: str, tokenizer: PreTrainedTokenizerFast, **config: Any) -> Backbone:
    """Build a tiny backbone, whose id is "tiny-" and whose fingerprint is the architecture (see `tiny_model`)."""
    model = tiny_model(architecture, len(tokenizer), **config)
    return Backbone(model, tokenizer, f"tiny-{architecture}", architecture)


def save_backbone(backbone: Backbone, folder: Path) -> Path:
    """Write the model and the tokenizer of a backbone as `Backbone.from_pretrained` reads them; return the folder."""
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def write_gguf(
    backbone: Backbone, path: Path, general: Mapping[str, str] | None = None, **settings: float | str
) -> Path:
    """Write a Llama backbone with a byte-level tokenizer as an unquantized GGUF file, as llama.cpp's converter does.

    Args:
        general: Fields about the model, by their names without `general.`.
        settings: Further settings of the architecture, with `__` for a dot in a name.
    """
    from gguf import GGUFWriter

    config, state = backbone.model.config, backbone.model.state_dict()
    writer = GGUFWriter(path, "llama")
    for name, text in (general or {}).items():
        writer.add_string(f"general.{name}", text)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    for name, value in settings.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"llama.{name.replace('__', '.')}", value)
    tokenizer = backbone.tokenizer
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if token in tokenizer.all_special_ids else 1 for token in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in state.items():
        if (count := next((heads[part] for part in heads if part in name), None)) is not None:
            # llama.cpp keeps the two halves of each head interleaved.
            weight = weight.reshape(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        for part, gguf_part in _GGUF_NAMES.items():
            name = name.replace(part, gguf_part)
        writer.add_tensor(name, weight.contiguous().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_adapter(backbone: Backbone, seed: int, r: int = 2, std: float = 0.2, scale: float = 2.0) -> Adapter:
    """Draw an adapter over all linear layers of a backbone; both factors are normal with the given deviation."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in linear_layers(backbone.model).items():
        width, height = dimensions(layer) or (0, 0)
        a = std * torch.randn(r, width, generator=generator)
        tensors[name] = (a, std * torch.randn(height, r, generator=generator))
    return Adapter(tensors, dict.fromkeys(tensors, scale))


def write_peft_adapter(
    model: Any, folder: Path, seed: int, meta: Mapping[str, Any] | None = None, **options: Any
) -> Path:
    """Write an adapter folder with random factors by PEFT alone; the model is left as it was.

    Args:
        model: The model that the adapter is for.
        folder: Folder that is written.
        seed: Seed of the factors.
        meta: Content of `lorarec.json`, which is not written when None.
        options: Arguments of `LoraConfig` in place of rank 3, alpha 6 and all linear layers.
    """
    settings: dict[str, Any] = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"} | options
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    peft.save_pretrained(str(folder))
    if meta is not None:
        write_json(folder / "lorarec.json", dict(meta))
    return folder


def numbered_titles(count: int, word: str = "lamp", digits: int = 2) -> dict[str, str]:
    """Title items i00, i01, ... "lamp 0", "lamp 1", ..."""
    return {f"i{number:0{digits}}": f"{word} {number}" for number in range(count)}


def dataset_of(
    rows: Sequence[Row],
    titles: Mapping[str, str] | None = None,
    name: str = "toy",
    *,
    users: pl.DataFrame | None = None,
    **columns: Sequence[Any],
) -> Dataset:
    """Build a dataset of interactions.

    Args:
        rows: User, item, timestamp and, in all rows or none, rating.
        titles: Titles of all items by their ids; "Title of" and the id for the items of the rows when None.
        name: Name of the dataset.
        users: Table of the users.
        columns: Further columns of the items, in the order of the titles.
    """
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    schema = dict(list(types.items())[: len(rows[0])])
    if titles is None:
        titles = {item: f"Title of {item}" for item in sorted({row[1] for row in rows})}
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values()), **columns})
    return Dataset.from_frames(name, pl.DataFrame(rows, schema=schema, orient="row"), items, users)


def noun_dataset() -> Dataset:
    """Build a dataset of 36 users, each of whom chooses seven of the ten items of one noun."""
    nouns = ["lamp", "chair", "table", "brush", "game", "puzzle"]
    rng = np.random.default_rng(0)
    titles = {f"{noun}-{number}": f"number{number} {noun}" for noun in nouns for number in range(10)}
    rows: list[Row] = []
    for user in range(36):
        chosen = rng.permutation(10)[:7]
        rows += [(f"u{user:02}", f"{nouns[user % 6]}-{number}", at) for at, number in enumerate(chosen)]
    return dataset_of(rows, titles, "nouns")


def circle_log(
    name: str,
    shuffled: bool = False,
    new_items: float = 0,
    words: Sequence[str] = ("lamp", "puzzle", "lipstick", "novel"),
) -> tuple[Dataset, Split]:
    """Build a log of 120 users whose items follow each other in circles of ten with a word in common, and its split.

    Args:
        name: Name of the dataset.
        shuffled: Whether the users' items are random instead.
        new_items: Share of the items that are new in the test.
        words: The word of each circle.
    """
    rng = np.random.default_rng(0)
    length, items = 10, 10 * len(words)
    rows: list[Row] = []
    for user in range(120):
        start, circle = rng.integers(length), user % len(words)
        chosen = circle * length + (start + np.arange(8)) % length
        if shuffled:
            chosen = rng.permutation(items)[:8]
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(chosen)]
    titles = {f"i{item}": f"{words[item // length]} no{item}" for item in range(items)}
    dataset = dataset_of(rows, titles, name)
    return dataset, leave_one_out(dataset, new_items=new_items, negatives=19 if new_items else 29, seed=1)


def circles_data(
    backbone: Backbone, tmp: pytest.TempPathFactory, shuffled: bool = False, new_items: float = 0
) -> TrainingData:
    """Build training data of the log of circles, with two other domains, one of the same words."""
    general = [circle_log("same words"), circle_log("other words", words=("chair", "brush", "game", "guide"))]
    return TrainingData(*circle_log("circles", shuffled, new_items), general, backbone, tmp.mktemp("kept"))


def taste_dataset() -> Dataset:
    """Build a dataset of 30 users with 12 ratings each of 32 things; women like lamps and chairs, men the rest.

    The last user's ratings are all of one moment at the end, so that it is unseen and without a history.
    """
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(30):
        things = rng.choice(32, 12, replace=False)
        for at, thing in enumerate(things):
            time = 10**6 if user == 29 else at * 100 + user
            rows.append((f"u{user:02}", f"i{thing:02}", time, 5.0 if (thing < 16) == (user % 2 == 0) else 2.0))
    colours = ["red", "green", "blue", "black", "white", "small", "big", "old"]
    names = [f"{colour} {thing}" for thing in ("lamp", "chair", "table", "brush") for colour in colours]
    users = pl.DataFrame({"user_id": [f"u{user:02}" for user in range(30)], "gender": ["F", "M"] * 15})
    return dataset_of(rows, {f"i{thing:02}": title for thing, title in enumerate(names)}, "taste", users=users)


def planted_clicks(
    likes: LikingRule, users: int, length: int = 12, kinds: Callable[[int], int] | None = None
) -> ClickLog:
    """Build a click log in which a rule decides who likes what.

    Users come one after another, so that those of validation and test are new and ids say nothing.

    Args:
        likes: Whether an item is liked, from (gender, age) of the user, the kinds of the items before and its own kind.
        users: Number of users.
        length: Number of events of a user.
        kinds: Kind of the item at each place; kinds are random when None.
    """
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    profiles = []
    for user in range(users):
        profile = int(rng.integers(2)), int(rng.integers(2))
        profiles.append((f"u{user:04}", "FM"[profile[0]], 20 + profile[1]))
        before: list[int] = []
        for at in range(length):
            kind = int(rng.integers(KINDS)) if kinds is None else kinds(at)
            item = kind + KINDS * int(rng.integers(FILMS // KINDS))
            rows.append((f"u{user:04}", f"i{item:02}", user * 1000 + at, 5.0 if likes(profile, before, kind) else 1.0))
            before.append(kind)
    people = pl.DataFrame(profiles, schema=["user_id", "gender", "age"], orient="row")
    genres = [f"kind {film % KINDS}" for film in range(FILMS)]
    return click_log(dataset_of(rows, numbered_titles(FILMS, "film"), "planted", users=people, genres=genres))


def hot_backbone(seed: int = 0, width: int = 32) -> Backbone:
    """Build a tiny Qwen2 backbone whose tokenizer knows the words of `hot_log`."""
    texts = [f"{_PROMPT_WORDS} {adjective} {noun}" for adjective in _ADJECTIVES for noun in _THINGS]
    tokenizer = tiny_tokenizer(texts, end_token=None)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_key_value_heads": 1}
    more: dict[str, Any] = {"max_position_embeddings": 1024, "tie_word_embeddings": True, "eos_token_id": None}
    model = tiny_model("qwen2", len(tokenizer), seed, **sizes, **more)
    return Backbone(model, tokenizer, f"tiny-{seed}", f"fingerprint-{seed}-{width}")


def hot_log(name: str = "shop", users: int = 24) -> tuple[Dataset, Split]:
    """Build a dataset and its split; each of the users begins with any of 40 things and goes on with hot ones."""
    rng = random.Random(f"{name} 0")
    titles = [f"{_ADJECTIVES[item % 10]} {_THINGS[item // 10]} {name}" for item in range(40)]
    hot = [item for item in range(40) if _ADJECTIVES[item % 10] in ("hot", "red", "new")]
    rows: list[Row] = []
    for user in range(users):
        liked = rng.sample(hot, 5)
        first = rng.choice([item for item in range(40) if item not in hot])
        rows += [(f"u{user:03}", f"i{item:03}", time) for time, item in enumerate([first, *liked])]
    dataset = dataset_of(rows, {f"i{item:03}": title for item, title in enumerate(titles)}, name)
    return dataset, leave_one_out(dataset, new_items=0.1, negatives=9)


def write_models(folder: Path) -> Path:
    """Write a tiny backbone `tiny`, the dataset `shop` with its split, and `general` and `specific`, trained on it."""
    save_backbone(hot_backbone(), folder / "tiny")
    backbone = Backbone.from_pretrained(folder / "tiny")
    dataset, split = hot_log()
    saved = dataset.save(folder / "shop")
    split.save(folder / "shop" / "split")
    for seed, name in enumerate(("general", "specific")):
        train(backbone, [(saved, split)], folder / name, TrainingConfig(**QUICK, seed=seed))
    return folder


def push_models(folder: Path) -> None:
    """Push what `write_models` wrote as repositories of the user `me`; those of the adapters are private."""
    Backbone.from_pretrained(folder / "tiny").push_to_hub("me/tiny")
    Dataset.load(folder / "shop").push_to_hub("me/shop")
    for name in ("general", "specific"):
        read_adapter(folder / name).push_to_hub(f"me/{name}", base_model="me/tiny", private=True)


def save_sentence_encoder(tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int = 0) -> Path:
    """Write a tiny sentence-transformers model: random BERT of two layers, mean pooling, embeddings of size 16."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, initializer_range=0.5)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    layers = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (path, name) in enumerate(layers)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": sizes["hidden_size"], "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder
