"""Tokenizers of several kinds, made for the tests, with control tokens of every kind."""

import json
from collections.abc import Callable
from functools import cache

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

#: Words of the bundled templates, of titles and of answers; with line ends behind brackets, as titles have them.
TEXTS = [
    "A user chose, in this order:\n- red lamp (1995)\n- small chair\n",
    "Would the user choose this next? Answer yes or no.\n- blue table\nyes\nno\nYes\nNo",
    "One of these comes next:\n- green novel (2001)\nWhich one?\n- red lamp, big\n",
]
SPECIAL = ["<s>", "</s>", "<unk>", "<|end|>"]
#: Control words that are added without being called special, as `<think>` in Qwen 3.
ADDED = ["<|im_start|>", "<|im_end|>", "<think>", "<tool_call>", "lego"]
#: The pattern by which Llama 3 and Qwen split text into words: a line end joins the signs before it.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _finished(tokenizer: Tokenizer, unknown: str | None = "<unk>") -> PreTrainedTokenizerFast:
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=unknown, add_bos_token=False
    )
    found.add_tokens([AddedToken(word, normalized=False) for word in ADDED])
    return found


def _byte_level(pattern: str | None = None, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 9, trainer)
    return tokenizer


def _sentencepiece(scheme: str) -> PreTrainedTokenizerFast:
    """Unigram over words that begin with a space, as T5 and Gemma have it; its vocabulary spells control tokens."""
    words = sorted({f"▁{word}" for text in TEXTS for word in text.replace("\n", " ").split()})
    letters = sorted({letter for text in [*TEXTS, *SPECIAL, *ADDED] for letter in text} - {" "})
    pieces = [("<unk>", 0.0), ("<s>", -2.0), ("</s>", -2.0), ("<|end|>", -2.0), ("▁", -3.0)]
    pieces += [(word, -4.0) for word in words] + [(letter, -6.0) for letter in letters]
    pieces += [(word, -5.0) for word in ("yes", "no", "Yes", "No")] + [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if scheme == "never" else [decoders.Strip(" ", 1, 0)])
    )
    return _finished(tokenizer)


def _llama_2() -> PreTrainedTokenizerFast:
    """Byte-pair encoding without words, a space put before every section by the normalizer."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(special_tokens=SPECIAL, vocab_size=200, show_progress=False)
    trained.train_from_iterator([f" {word}" for text in TEXTS for word in text.split()] * 9, trainer)
    model = json.loads(trained.to_str())["model"]
    for byte in range(256):
        model["vocab"][f"<0x{byte:02X}>"] = len(model["vocab"])
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(tokenizer)


def _word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, *SPECIAL, *ADDED, "[CLS] [SEP] [MASK]"], trainer)
    return _finished(tokenizer, "[UNK]")


def _word_level() -> PreTrainedTokenizerFast:
    """Words between spaces, control words among them."""
    words = [*SPECIAL, *ADDED, *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(tokenizer)


def _writes_control_tokens() -> PreTrainedTokenizerFast:
    """A normalizer that turns one character into a control token, and one that lower-cases others to one."""
    rules = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("☃", "</s>")]
    return _finished(_byte_level(normalizer=normalizers.Sequence(rules)))


def _spells_control_tokens() -> PreTrainedTokenizerFast:
    """Byte-pair encoding whose merges spell a control token, with the end of text as unknown token, as in GPT-2."""
    tokenizer = _byte_level()
    word = "<|im_start|>"
    merges = ["< |", "i m", "s t", "a r", "ar t", "st art", "_ start", "im _start", "<| im_start", "| >"]
    merges += [f"{word[:-2]} |>"]
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    for merge in merges:
        vocabulary.setdefault(merge.replace(" ", ""), len(vocabulary))
    tokenizer.model = models.BPE(vocabulary, [tuple(merge.split()) for merge in merges])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return _finished(tokenizer, "</s>")


MAKERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "gpt-2": lambda: _finished(_byte_level()),
    "llama-3": lambda: _finished(_byte_level(LLAMA_3)),
    "llama-2": _llama_2,
    "unigram-first": lambda: _sentencepiece("first"),
    "unigram-always": lambda: _sentencepiece("always"),
    "unigram-never": lambda: _sentencepiece("never"),
    "word-piece": _word_piece,
    "word-level": _word_level,
    "normalised": _writes_control_tokens,
    "spelled": _spells_control_tokens,
    "byt5": ByT5Tokenizer,
}


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], PreTrainedTokenizerBase]:
    """The tokenizer of a kind, made once; a test that changes one puts it back."""
    return cache(lambda kind: MAKERS[kind]())
