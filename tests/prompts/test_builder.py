"""Prompts: pieces, truncation, chat templates, bad input."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lorarec.errors import LorarecError
from lorarec.prompts import REASON, PromptBuilder

HISTORY = ["red lamp", "small chair"]
CANDIDATES = ["blue table", "green novel"]


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_decoded_prompt_reads_as_the_template(tokenizer: PreTrainedTokenizerFast, readout: str) -> None:
    example = PromptBuilder(tokenizer, readout).example(HISTORY, CANDIDATES)
    text = tokenizer.decode(example.prompt + example.branches[1])
    assert text.startswith("A user chose, in this order:\n- red lamp\n- small chair\n")
    assert text.endswith("- green novel\n")
    assert ("- blue table\n" in text) == (readout == "likelihood")


def test_a_title_has_the_same_ids_wherever_it_stands(tokenizer: PreTrainedTokenizerFast) -> None:
    example = PromptBuilder(tokenizer, "likelihood").example(["red lamp"], ["red lamp", "novel"])
    title = example.branches[0][:-1]
    places = [i for i in range(len(example.prompt)) if example.prompt[i : i + len(title)] == title]
    assert len(places) == 2


def test_written_out_prompt_equals_built_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer)
    text = "A user chose, in this order:\n- red lamp\nWould the user choose this next? Answer yes or no.\n- "
    built, written = builder.example(["red lamp"], CANDIDATES), builder.from_text(text, CANDIDATES)
    assert tokenizer.decode(built.prompt) == tokenizer.decode(written.prompt)
    assert built.branches == written.branches


def test_oldest_history_is_dropped_first_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer, max_tokens=120)
    titles = [f"lamp {i}" for i in range(60)]
    example = builder.example(titles, CANDIDATES)
    text = tokenizer.decode(example.prompt)
    assert "lamp 59" in text
    assert "lamp 0\n" not in text
    assert builder.dropped == 60 - text.count("lamp")
    assert len(example.prompt) + max(map(len, example.branches)) <= 120


def test_long_titles_are_truncated(tokenizer: PreTrainedTokenizerFast) -> None:
    example = PromptBuilder(tokenizer, max_title_tokens=5).example(HISTORY, ["lamp " * 50])
    assert len(example.branches[0]) == 6


def test_chat_template_wraps_the_question(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>")
    messages = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
    chat.chat_template = messages + "{% if add_generation_prompt %}[assistant]{% endif %}"
    verdict = PromptBuilder(chat).example(HISTORY, CANDIDATES)
    assert chat.decode(verdict.prompt).startswith("[user]A user")
    assert chat.decode(verdict.branches[0]) == " blue table[/][assistant]"
    likelihood = PromptBuilder(chat, "likelihood").example(HISTORY, CANDIDATES)
    assert chat.decode(likelihood.prompt).endswith("Which one?[/][assistant]")
    assert chat.decode(likelihood.branches[0]) == "blue table\n"


def test_own_template(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_text("{{ history | join(', ') }} -> {{ candidate }}?")
    example = PromptBuilder(tokenizer, template=tmp_path / "own.j2").example(HISTORY, CANDIDATES)
    assert tokenizer.decode(example.prompt + example.branches[0]) == "red lamp, small chair -> blue table?"


@pytest.mark.parametrize(
    ("source", "message"),
    [("no slot", "exactly once"), ("{{ candidate }}{{ nothing }}", "rendered"), ("{% if %}", "not valid Jinja2")],
)
def test_bad_template(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "bad.j2").write_text(source)
    with pytest.raises(LorarecError, match=message):
        PromptBuilder(tokenizer, template=tmp_path / "bad.j2").example(HISTORY, CANDIDATES)


def test_bad_input(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer, max_tokens=40)
    with pytest.raises(LorarecError, match="at least one candidate"):
        builder.example(HISTORY, [])
    with pytest.raises(LorarecError, match="empty title"):
        builder.example(["red lamp", ""], CANDIDATES)
    with pytest.raises(LorarecError, match="more than the limit of 40"):
        builder.example(HISTORY, ["lamp " * 40])
    with pytest.raises(LorarecError, match="unknown readout"):
        PromptBuilder(tokenizer, "guess")
    with pytest.raises(LorarecError, match=r"missing\.j2 cannot be read"):
        PromptBuilder(tokenizer, template="missing.j2")


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_hints_are_after_their_titles(tokenizer: PreTrainedTokenizerFast, readout: str) -> None:
    """A prompt with a list of candidates has the hints in the list; otherwise each is in its branch."""
    builder = PromptBuilder(tokenizer, readout)
    plain = builder.example(HISTORY, CANDIDATES)
    hinted = builder.example(HISTORY, CANDIDATES, hints=["often", ""])
    text = tokenizer.decode(hinted.prompt + hinted.branches[0])
    assert text.count("- blue table: often\n") == 1
    assert "he word after a title says how often those who chose the same titles chose it too" in text
    assert "often" not in tokenizer.decode(plain.prompt + plain.branches[0])
    assert hinted.branches[1] == plain.branches[1]
    assert (hinted.branches == plain.branches) == (readout == "likelihood")


def test_long_titles_keep_their_hints(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer, max_title_tokens=2)
    branch = builder.example(HISTORY, ["red lamp with a very long name"], hints=["often"]).branches[0]
    assert tokenizer.decode(branch).endswith(": often\n")


def _words(*words: str) -> PreTrainedTokenizerFast:
    """A vocabulary of words and letters, in which other words are unknown."""
    vocabulary = dict.fromkeys(["<unk>", "\n", *"?:.,-", "user", *words])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", name_or_path="words")


@pytest.mark.parametrize(
    ("words", "became"),
    [
        (("yes",), r"yes and <unk>"),
        ((), r"<unk> and <unk>"),
        (("yes", "No"), r"yes and <unk>"),
    ],
)
def test_unknown_answers_are_refused(words: tuple[str, ...], became: str) -> None:
    message = (
        f"needs yes and no as a token each, but tokenizer words makes {became} of them: use the readout likelihood"
    )
    with pytest.raises(LorarecError, match=message):
        PromptBuilder(_words(*words))


def test_answers_of_several_tokens_are_refused(tokenizer_of: Callable[[str], PreTrainedTokenizerBase]) -> None:
    """The first token of a longer answer is never read in its place."""
    with pytest.raises(LorarecError, match=r"ByT5Tokenizer makes y\+e\+s and n\+o of them: use the readout likelihood"):
        PromptBuilder(tokenizer_of("byt5"))


@pytest.mark.parametrize("kind", ["byt5", "spelled"])
def test_likelihood_needs_no_answers(tokenizer_of: Callable[[str], PreTrainedTokenizerBase], kind: str) -> None:
    builder = PromptBuilder(tokenizer_of(kind), "likelihood")
    assert builder.example(HISTORY, CANDIDATES).branches


def test_reasons_need_no_answers(tokenizer_of: Callable[[str], PreTrainedTokenizerBase]) -> None:
    assert PromptBuilder(tokenizer_of("byt5"), template=REASON).example(HISTORY, CANDIDATES).branches


@pytest.mark.parametrize("words", [("yes", "no"), ("Yes", "No")])
def test_answers_in_the_case_that_the_vocabulary_has(words: tuple[str, str]) -> None:
    tokenizer = _words(*words)
    assert PromptBuilder(tokenizer).yes_no == tuple(tokenizer.convert_tokens_to_ids(list(words)))


def test_control_words_in_a_written_out_prompt_are_text(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer)
    example = builder.from_text("<|end|>red lamp\n- ", ["<|end|>"])
    assert tokenizer.eos_token_id not in [*example.prompt, *example.branches[0]]
    assert tokenizer.decode([*example.prompt, *example.branches[0]]) == "<|end|>red lamp\n- <|end|>\n"


def test_a_written_out_prompt_is_the_message_of_a_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>")
    chat.chat_template = "[{{ messages[0].content }}]{% if add_generation_prompt %}:{% endif %}"
    for readout, text in (("verdict", "[Red? lamp]:"), ("likelihood", "[Red?]:lamp\n")):
        example = PromptBuilder(chat, readout).from_text("Red? " if readout == "verdict" else "Red?\n- ", ["lamp"])
        assert chat.decode([*example.prompt, *example.branches[0]]) == text
