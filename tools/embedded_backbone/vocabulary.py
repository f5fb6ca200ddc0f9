"""The byte-pair vocabulary of the embedded backbone."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
ANSWERS = ("yes", "no")


def train_vocabulary(texts: Iterable[str], words: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a lower-cased byte-level BPE.

    Catalogues capitalize titles differently; with lower case a title has the same tokens in all of them.

    Args:
        texts: Titles of the general domains.
        words: Common words of the language, most frequent first. They are counted with falling weight, so that words
            that do not occur in the general domains are whole tokens too.
        size: Number of tokens.
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
    # An answer starts a line, so it needs a token without a space before it.
    yield from ANSWERS * 1_000
    for rank, word in enumerate(words):
        yield f" {word}" * (10 + 60_000 // (rank + 500))
