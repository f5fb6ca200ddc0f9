"""Text from data never becomes a control token in any tokenizer; other text has its usual ids."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lorarec.prompts import PromptBuilder, TextEncoder

Tokenizers = Callable[[str], PreTrainedTokenizerBase]
KINDS = (
    "gpt-2",
    "llama-3",
    "llama-2",
    "unigram-first",
    "unigram-always",
    "unigram-never",
    "word-piece",
    "word-level",
    "normalised",
    "spelled",
    "byt5",
)
#: Some control words of most of them.
WORDS = ["<s>", "</s>", "<|end|>", "<|im_start|>", "<|im_end|>", "<think>", "<tool_call>", "lego"]
PLACES = ("start", "section", "inside")
#: Kinds whose ids give back any text that holds no two spaces and none at its start.
LOSSLESS = ("gpt-2", "llama-3", "llama-2", "unigram-first", "unigram-always", "unigram-never", "byt5")
WHOLE = (*LOSSLESS[:-1], "word-piece", "word-level", "normalised")
#: Each makes one of `WORDS` after normalisation in one of the vocabularies.
DISGUISED = ["☃", "\uff1c\uff0f\uff53\uff1e", "<|IM_START|>", "<|im_start︱>", "[SEP]", "[UNK]", "<extra_id_0>"]


def _control(tokenizer: PreTrainedTokenizerBase, kind: str) -> set[int]:
    """Ids of all special and added tokens, as the tokenizer gives them; words unknown to some kinds become one."""
    every = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return every - {tokenizer.unk_token_id} if kind in ("word-piece", "word-level") else every


def _hostile(tokenizer: PreTrainedTokenizerBase) -> st.SearchStrategy[str]:
    words = [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), *WORDS, *DISGUISED]
    halves = [half for word in words for half in (word[:3], word[3:]) if half]
    return st.lists(st.sampled_from([*words, *halves, " ", "\n", "red lamp", "é字"]) | st.text(max_size=3)).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(data=st.data())
def test_no_control_token_comes_from_text(tokenizer_of: Tokenizers, kind: str, data: Any) -> None:
    tokenizer = tokenizer_of(kind)
    encoder, text = TextEncoder(tokenizer), data.draw(_hostile(tokenizer))
    for place in PLACES:
        assert _control(tokenizer, kind).isdisjoint(encoder.plain(text, place))


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_word_of_the_tokenizer(tokenizer_of: Tokenizers, kind: str) -> None:
    """Alone, in words, doubled, and halved by a title's end."""
    tokenizer = tokenizer_of(kind)
    encoder, control = TextEncoder(tokenizer), _control(tokenizer, kind)
    for word in {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}:
        for text in (word, f" {word}", f"red{word}lamp", word * 2, word[:-1], f"{word[:2]}{word}{word[2:]}"):
            for place in PLACES:
                assert control.isdisjoint(encoder.plain(text, place)), (word, text, place)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=100)
@given(words=st.lists(st.sampled_from([*WORDS, "red lamp", "a", "("]), min_size=1))
def test_control_words_read_as_they_are_written(tokenizer_of: Tokenizers, kind: str, words: list[str]) -> None:
    tokenizer, text = tokenizer_of(kind), "".join(words)
    place = "start" if kind != "unigram-never" else "inside"
    assert tokenizer.decode(TextEncoder(tokenizer).plain(text, place), clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("kind", KINDS)
def test_templates_write_control_tokens(tokenizer_of: Tokenizers, kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    encoder = TextEncoder(tokenizer)
    for word in WORDS[3:]:
        if word in tokenizer.get_added_vocab():
            for place in PLACES:
                assert tokenizer.convert_tokens_to_ids(word) in encoder.template(f"red {word}\n", place)


@pytest.mark.parametrize("run", ["\n", "▁▁"])
def test_runs_of_line_breaks_and_spaces_are_no_control_tokens(run: str) -> None:
    """Gemma adds them to its vocabulary."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "lamp": 1, run: 2}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(run, "isolated")
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    found.add_tokens([AddedToken(run, normalized=False)])
    assert TextEncoder(found).plain(f"lamp{run}".replace("▁", " ")) == [1, 2]


def test_text_is_plain_whatever_was_encoded_before(tokenizer_of: Tokenizers) -> None:
    """A tokenizer of the Rust library remembers `split_special_tokens` of the last call."""
    tokenizer = tokenizer_of("gpt-2")
    encoder = TextEncoder(tokenizer)
    written, plain = encoder.template("<|end|>"), encoder.plain("<|end|>")
    tokenizer("lamp", split_special_tokens=True)
    assert encoder.template("<|end|>") == written == [tokenizer.convert_tokens_to_ids("<|end|>")]
    tokenizer("lamp", split_special_tokens=False)
    assert encoder.plain("<|end|>") == plain


def test_tokenizers_that_do_not_know_the_option(tokenizer_of: Tokenizers) -> None:
    """Remote code and mistral-common have such tokenizers."""

    class Foreign:
        """Encodes through another tokenizer, and refuses the option that keeps control tokens apart."""

        def __init__(self, inner: PreTrainedTokenizerBase) -> None:
            for name in ("all_special_tokens", "all_special_ids", "bos_token", "eos_token", "pad_token", "unk_token"):
                setattr(self, name, getattr(inner, name))
            self.unk_token_id, self.added_tokens_decoder = inner.unk_token_id, inner.added_tokens_decoder
            self.inner = inner

        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
            return self.inner(text, add_special_tokens=add_special_tokens)

    for kind in ("gpt-2", "llama-2", "unigram-always"):
        inner = tokenizer_of(kind)
        encoder = TextEncoder(Foreign(inner))  # type: ignore[arg-type]
        for word in WORDS[3:]:
            ids = encoder.plain(f" red{word} lamp", "inside")
            assert _control(inner, kind).isdisjoint(ids)
            assert inner.decode(encoder.plain("red lamp")) == "red lamp"
        assert encoder.plain(" red lamp", "inside") == TextEncoder(inner).plain(" red lamp", "inside")


TITLE = st.lists(
    st.sampled_from(["red", "lamp", "(1995)", "!", ", ", " ", "x", "-", "é字", "?", " big", "'s", "12", ")", "…"]),
    min_size=1,
    max_size=6,
).map(lambda parts: "".join(parts).strip())


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(titles=st.lists(TITLE.filter(bool), min_size=4, max_size=4))
def test_pieces_have_the_ids_of_the_whole_text(
    tokenizer_of: Tokenizers, kind: str, readout: str, titles: list[str]
) -> None:
    tokenizer = tokenizer_of(kind)
    example = PromptBuilder(tokenizer, readout).example(titles[:2], titles[2:])
    listed = "".join(f"- {title}\n" for title in titles[2:])
    question = {
        "verdict": "Would the user choose this next? Answer yes or no.\n",
        "likelihood": f"One of these comes next:\n{listed}Which one?\n",
    }[readout]
    text = f"A user chose, in this order:\n- {titles[0]}\n- {titles[1]}\n{question}- "
    for title, branch in zip(titles[2:], example.branches, strict=True):
        assert [*example.prompt, *branch] == tokenizer(f"{text}{title}\n", add_special_tokens=False).input_ids


FRAMES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "bare": "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}<|im_end|>",
}


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind != "word-piece"])
@pytest.mark.parametrize("frame", FRAMES)
@settings(max_examples=20)
@given(titles=st.lists(TITLE.filter(bool), min_size=3, max_size=3))
def test_pieces_have_the_ids_of_the_whole_chat(
    tokenizer_of: Tokenizers, kind: str, frame: str, titles: list[str]
) -> None:
    tokenizer = tokenizer_of(kind)
    tokenizer.chat_template = FRAMES[frame]
    try:
        example = PromptBuilder(tokenizer).example(titles[:2], titles[2:])
        content = (
            f"A user chose, in this order:\n- {titles[0]}\n- {titles[1]}\n"
            f"Would the user choose this next? Answer yes or no.\n- {titles[2]}"
        )
        message = [{"role": "user", "content": content}]
        whole = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        assert [*example.prompt, *example.branches[0]] == whole
    finally:
        tokenizer.chat_template = None


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
@pytest.mark.parametrize("kind", ["llama-3", "llama-2", "unigram-always"])
def test_branches_do_not_depend_on_each_other(tokenizer_of: Tokenizers, kind: str, readout: str) -> None:
    builder = PromptBuilder(tokenizer_of(kind), readout, max_title_tokens=4)
    titles = ["red lamp (1995)", "lamp", "(x)", "big blue table with a very long name"]
    together = builder.example(["small chair"], titles)
    assert together.branches == builder.example(["small chair"], titles[::-1]).branches[::-1]
    for title, branch in zip(titles, together.branches, strict=True):
        assert builder.example(["red lamp", "novel"], [title]).branches == [branch]
