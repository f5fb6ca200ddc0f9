"""The embedded backbone's byte-pair vocabulary."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
ANSWERS = ("yes", "no")


def train_vocabulary(texts: Iterable[str], words: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a lower-cased byte-level BPE.

    Titles shout, whisper and capitalise at will; lower-casing lets a title match itself across catalogues.

    Args:
        texts: titles of the general domains.
        words: common words of the language, most frequent first; they enter with falling weight so that words that
            the general domains lack are whole tokens too.
        size: number of tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_weighted(texts, words), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def _weighted(texts: Iterable[str], words: Iterable[str]) -> Iterable[str]:
    yield from (f" {text}" for text in texts)
    # Answers open a line, so they need tokens without a space before them.
    yield from ANSWERS * 1_000
    for rank, word in enumerate(words):
        yield f" {word}" * (10 + 60_000 // (rank + 500))
