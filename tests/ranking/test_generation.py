"""Generated lists: constrained decoding ranks as the exact likelihood does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.ranking import generate_titles
from lorarec.ranking.generation import TitleList

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "novel"]


def test_constrained_list_is_a_permutation(any_backbone: Backbone) -> None:
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    listed = generate_titles(any_backbone, builder, builder.example(TITLES[:2], TITLES), count=9, constrained=True)
    assert sorted(index for index in listed if index is not None) == [0, 1, 2, 3, 4]


def test_first_title_follows_the_greedy_path(tiny_backbone: Backbone) -> None:
    """With one-token titles the greedy path is the most likely candidate."""
    from lorarec.scoring import score

    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood", max_title_tokens=1)
    titles = ["red", "green", "blue", "lamp"]
    example = builder.example(["red"], titles)
    listed = generate_titles(tiny_backbone, builder, example, count=1, constrained=True)
    first_tokens = score(
        tiny_backbone.model, [type(example)(example.prompt, [b[:1] for b in example.branches])], builder
    )
    assert listed == [int(np.argmax(first_tokens[0]))]


def test_random_model_writes_no_candidate_unconstrained(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood")
    listed = generate_titles(tiny_backbone, builder, builder.example(TITLES[:1], TITLES), count=2, max_title_tokens=8)
    assert listed == [None, None]


def test_titles_of_any_length_are_generated(tiny_backbone: Backbone) -> None:
    """The limit of titles without an end does not truncate titles of candidates."""
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood", max_title_tokens=200)
    example = builder.example(["red lamp"], ["q" * 90 + "a", "q" * 90 + "b", "red lamp"])
    assert max(map(len, example.branches)) > 90
    listed = generate_titles(tiny_backbone, builder, example, count=3, constrained=True)
    assert sorted(index for index in listed if index is not None) == [0, 1, 2]
    titles = TitleList(builder, example, count=1)
    for token in example.branches[1]:
        titles.add(token)
    assert titles.listed == [1]


def test_logits_that_are_no_numbers_are_refused(tiny_backbone: Backbone) -> None:
    with torch.no_grad():
        tiny_backbone.model.get_output_embeddings().weight.fill_(float("nan"))
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood")
    with pytest.raises(LorarecError, match="a logit of the next token is NaN: load the model in float32"):
        generate_titles(tiny_backbone, builder, builder.example(TITLES[:1], TITLES), count=2, constrained=True)


def test_verdict_prompts_cannot_generate(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer)
    with pytest.raises(LorarecError, match="readout=likelihood"):
        generate_titles(tiny_backbone, builder, builder.example(["red lamp"], TITLES))


def test_titles_end_with_whichever_token_ends_the_line() -> None:
    """Llama 3 and Qwen have tokens for a bracket with the end of its line."""
    tokenizer = Tokenizer(models.BPE())
    lines = pre_tokenizers.Split(Regex(r" ?[^\s\p{L}]+[\r\n]*|\s*[\r\n]+| ?\p{L}+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" (red)\n", " lamp\n"] * 9, trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    builder = PromptBuilder(found, "likelihood")
    example = builder.example([" lamp"], ["(red)", "lamp", "novel"])
    assert found.convert_ids_to_tokens([branch[-1] for branch in example.branches]) == [")Ċ", "Ċ", "Ċ"]
    titles = TitleList(builder, example, count=2)
    for token in (*example.branches[0], *example.branches[1]):
        titles.add(token)
    assert titles.listed == [0, 1]
    start = found.convert_tokens_to_ids(["-"])
    assert titles.ids == [*example.prompt, *example.branches[0], *start, *example.branches[1], *start]


def test_a_title_in_the_last_line_is_not_read_again(tiny_backbone: Backbone, tmp_path: Path) -> None:
    """The tokens before every written title are copied from the prompt, not encoded again."""
    (tmp_path / "own.j2").write_text("{{ candidates | join(', ') }}\nAfter {{ history | join }}: {{ candidate }}\n")
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood", tmp_path / "own.j2")
    example = builder.example(["<|end|>"], ["lamp", "novel"])
    titles = TitleList(builder, example, count=2)
    for token in example.branches[0]:
        titles.add(token)
    assert tiny_backbone.tokenizer.decode(titles.ids).endswith("After <|end|>: lamp\nAfter <|end|>:")
    assert tiny_backbone.tokenizer.eos_token_id not in titles.ids
