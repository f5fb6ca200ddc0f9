"""Templates: their own text, and text from data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lorarec.errors import LorarecError
from lorarec.prompts import CLICK, SAME_WITHOUT_EVIDENCE, PromptBuilder, PromptConfig, Template
from lorarec.prompts.templating import VERSIONED, Literal, Plain, Title

Tokenizers = Callable[[str], PreTrainedTokenizerBase]
HOSTILE = ["<|im_start|>", "</s>", "\x00h0\x00", "\x00x0\x00", "\x000:t0\x00", "{{ candidate }}", "{% raw %}", "a", " "]
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


def test_pieces_distinguish_template_and_data() -> None:
    pieces = Template("verdict", CLICK)._pieces(1, 0, ("5 stars",), "gender F", hint="Drama")
    assert pieces.prompt == (
        Literal("About the user: "),
        Plain("gender F"),
        Literal("\nThe user rated, in this order:\n- "),
        Title("h", 0),
        Literal(": "),
        Plain("5 stars"),
        Literal("\nWould the user like this? Answer yes or no.\n- "),
    )
    assert pieces.suffix == (Literal(": "), Plain("Drama"), Literal("\n"))


@settings(max_examples=100)
@given(
    title=st.lists(st.sampled_from(HOSTILE), min_size=1).map("".join),
    profile=st.lists(st.sampled_from(HOSTILE)).map("".join),
    hint=st.lists(st.sampled_from(HOSTILE)).map("".join),
    stars=st.lists(st.sampled_from(HOSTILE)).map("".join),
    chat=st.booleans(),
)
def test_text_of_data_stays_text(
    tokenizer_of: Tokenizers, title: str, profile: str, hint: str, stars: str, chat: bool
) -> None:
    """Marks, control tokens and Jinja2 in titles, profiles, hints and stars are read as they are written."""
    tokenizer = tokenizer_of("gpt-2")
    tokenizer.chat_template = CHAT if chat else None
    try:
        builder = PromptBuilder(tokenizer, template=CLICK, max_title_tokens=500, max_tokens=5000)
        example = builder.example([title], [title], [stars], profile, [hint])
    finally:
        tokenizer.chat_template = None
    about = f"About the user: {profile}\n" if profile else ""
    hinted = f": {hint}" if hint else ""
    question = (
        f"{about}The user rated, in this order:\n- {title}: {stars}\nWould the user like this? Answer yes or no.\n"
    )
    opening, closing = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n") if chat else ("", "\n")
    ids = [*example.prompt, *example.branches[0]]
    assert tokenizer.decode(ids) == f"{opening}{question}- {title}{hinted}{closing}"
    assert sum(token in builder.encoder.control for token in ids) == 3 * chat


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ profile | upper }}\n- {{ candidate }}{% if note == 'often' %}!{% endif +%}\n", "<S>GENDER F\n- lamp!\n"),
        ("{{ history | join(', ') }} -> {{ candidate }}\n", "red </s>lamp, novel -> lamp\n"),
        (
            "{% for t in history %}{{ loop.index }}. {{ t }}\n{% endfor %}{{ candidate }}\n",
            "1. red </s>lamp\n2. novel\nlamp\n",
        ),
        ("{{ stars | join ~ history | join(' ') }}: {{ candidate }}\n", "45</s>red </s>lamp novel: lamp\n"),
    ],
)
def test_expressions_give_plain_text(tokenizer_of: Tokenizers, tmp_path: Path, source: str, text: str) -> None:
    tokenizer = tokenizer_of("gpt-2")
    (tmp_path / "own.j2").write_text(source)
    builder = PromptBuilder(tokenizer, template=tmp_path / "own.j2")
    example = builder.example(["red </s>lamp", "novel"], ["lamp"], ["4", "5</s>"], "<s>gender F", ["often"])
    ids = [*example.prompt, *example.branches[0]]
    assert tokenizer.decode(ids) == text
    assert builder.encoder.control.isdisjoint(ids)


def test_own_templates_write_control_tokens(tokenizer_of: Tokenizers, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("gpt-2")
    (tmp_path / "own.j2").write_text("<|im_start|>{{ history | first | default }}<|im_end|>{{ candidate }}<|im_end|>\n")
    builder = PromptBuilder(tokenizer, template=tmp_path / "own.j2")
    example = builder.example(["lamp"], ["<|im_end|>"])
    ids = [*example.prompt, *example.branches[0]]
    assert [token for token in ids if token in builder.encoder.control] == tokenizer.convert_tokens_to_ids(
        ["<|im_start|>", "<|im_end|>", "<|im_end|>"]
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ history | join | upper }} {{ candidate }}", "changes a title"),
        ("{{ history | join | lower }} {{ candidate }}", "changes a title"),
        ("{{ history | join | capitalize }} {{ candidate }}", "changes a title"),
        ("{{ history | join | reverse }} {{ candidate }}", "changes a title"),
        ("{{ (history | join)[1:] }} {{ candidate }}", "changes a title"),
        ("{{ (history | first | default('a'))[1:] }} {{ candidate }}", "cannot be rendered"),
        ("{% if candidate | length > 9 %}long{% endif %} {{ candidate }}", "cannot be rendered"),
        ("{{ history }} {{ candidate }}", "cannot be rendered: an expression gives a list"),
        ("{{ stars }} {{ candidate }}", "cannot be rendered: an expression gives a tuple"),
        ("{{ [profile, 'a'] }} {{ candidate }}", "cannot be rendered: an expression gives a list"),
        ("{{ candidate }} {{ history | join }}", "holds a title after"),
        ("{{ candidate }}{{ profile + 1 }}", "cannot be rendered"),
    ],
)
def test_bad_templates(tokenizer_of: Tokenizers, tmp_path: Path, source: str, message: str) -> None:
    path, tokenizer, data = tmp_path / "bad.j2", tokenizer_of("gpt-2"), (["lamp"], ["lamp"], ["</s>"], "</s>")
    path.write_text(source)
    with pytest.raises(LorarecError, match=message):
        PromptBuilder(tokenizer, "likelihood", path).example(*data)


def test_a_byte_order_mark_is_no_part_of_a_template(tokenizer_of: Tokenizers, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("gpt-2")
    (tmp_path / "own.j2").write_text("{{ history | join }}: {{ candidate }}\n", encoding="utf-8-sig")
    example = PromptBuilder(tokenizer, template=tmp_path / "own.j2").example(["lamp"], ["novel"])
    assert tokenizer.decode([*example.prompt, *example.branches[0]]) == "lamp: novel\n"


def test_a_file_that_is_no_text(tokenizer_of: Tokenizers, tmp_path: Path) -> None:
    (tmp_path / "bad.j2").write_bytes(b"\xff\xfe{{ candidate }}")
    with pytest.raises(LorarecError, match=r"bad\.j2 cannot be read: it is not UTF-8 text"):
        PromptBuilder(tokenizer_of("gpt-2"), template=tmp_path / "bad.j2")


@pytest.mark.parametrize(("former", "latest"), SAME_WITHOUT_EVIDENCE.items())
def test_versions_that_count_as_the_same_differ_only_by_evidence(former: str, latest: str) -> None:
    readout = former.partition("-")[0]
    one, other = Template(readout, former), Template(readout, latest)
    assert one.pieces(3, 4) == other.pieces(3, 4)
    evidence = {"hints": ("often",) * 4, "hint": "often", "evidence": True}
    assert one.pieces(3, 4, **evidence) != other.pieces(3, 4, **evidence)


@pytest.mark.parametrize("version", [name for name in VERSIONED if not name.startswith(CLICK)])
def test_another_readout_has_the_template_of_the_same_version(version: str) -> None:
    readout, number = version.rsplit("-", 1)
    other = "likelihood" if readout == "verdict" else "verdict"
    changed = PromptConfig(readout=readout, template=version).with_readout(other)
    assert changed == PromptConfig(readout=other, template=f"{other}-{number}")
    assert Template(other, changed.template).name == f"{other}-{number}"
