"""Untrusted templates: allowed constructs, and limits on rendering."""

import time
from contextlib import suppress

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.prompts import READOUTS, Template
from lorarec.prompts import sandbox as module
from lorarec.prompts.sandbox import SOURCE_LIMIT, LimitedTemplate
from lorarec.prompts.templating import BUNDLED, Literal, TemplateText, read_template

LISTS = {"history": ["a", "b", "c"], "notes": ["new", ""]}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "{% for title in history %}{{ loop.index }}. {{ title }}{% if not loop.last %}, {% endif %}{% endfor %}",
            None,
        ),
        ("{% for title in history[-2:] if title != 'b' %}{{ title }}{% else %}none{% endfor %}", None),
        ("{{ history | join(', ') }} and {{ notes[loop_place | default(0)] }}", "a, b, c and new"),
        ("{{ history | reverse | first | upper }}{{ history | length + 1 }}", "C4"),
        ("{% if history and 'a' in history %}{{ history[0] ~ '!' }}{% elif notes %}x{% else %}y{% endif %}", "a!"),
        ("{{ 'yes' if notes | count > 1 else 'no' }}{# a comment #}{% raw %}{{ raw }}{% endraw %}", "yes{{ raw }}"),
        ("{% for a in history %}{% for b in notes %}{{ a }}{{ b }};{% endfor %}{% endfor %}", None),
    ],
)
def test_allowed_constructs_render_as_in_jinja2(source: str, text: str | None) -> None:
    found = LimitedTemplate("own", source).render(**LISTS)
    assert found == jinja2.Template(source).render(**LISTS)
    assert text in (None, found)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10**9) %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % 5 }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a' | replace('a', 'aa') }}",
        "{{ history | join('x' | upper) }}",
        "{{ history | join('" + "x" * 101 + "') }}",
        "{{ history + history }}",
        "{% set a = 'aa' %}{{ a ~ a }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in history recursive %}{{ loop(history) }}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% extends '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ history.__class__ }}",
        "{{ history.append(1) }}",
        "{{ lipsum(1000) }}",
        "{{ ''.join(history) }}",
        "{{ loop.cycle('a') }}",
        "{% filter upper %}a{% endfilter %}",
        "{% block a %}{% endblock %}",
        "{{ 1 // 0 }}",
    ],
)
def test_unbounded_constructs_are_refused_by_name_and_line(source: str) -> None:
    with pytest.raises(LorarecError, match=r"template own must not use .* line 2"):
        LimitedTemplate("own", "words\n" + source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a" * (SOURCE_LIMIT + 1), "longer than 65,536"),
        ("{{" + "(" * 30_000, "nested too deep"),
        ("{{ " + "not " * 10_000 + "history }}", "nested too deep|too deep constructs"),
        ("{% if history %}" * 3000, "nested too deep"),
        ("{% if history %}" * 60 + "{% endif %}" * 60, "too deep constructs"),
        ("{{ history }}" * 1001, "too many or too deep"),
        ("{{ " + "9" * 60_000 + " }}", "too long"),
        ("{% if %}", "not valid Jinja2: .*line 1"),
        ("{{ 'open }}", "not valid Jinja2"),
        ("{% unknown %}", "not valid Jinja2"),
    ],
)
def test_sources_that_cannot_be_compiled(source: str, message: str) -> None:
    with pytest.raises(LorarecError, match=message) as error:
        LimitedTemplate("own", source)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ history[7] }}", "no element 7"),
        ("{{ history + 1 }}", "concatenate"),
        ("{% for a, b in history %}{% endfor %}", "unpack"),
        ("{% for a in 5 %}{% endfor %}", "iterable"),
        ("{{ history < 5 }}", "supported"),
        ("{% for a in history %}" * 3 + "x" * 50_000 + "{% endfor %}" * 3, "more than 1,048,576"),
    ],
)
def test_errors_of_rendering_are_one_line(source: str, message: str) -> None:
    with pytest.raises(LorarecError, match=message) as error:
        LimitedTemplate("own", source).render(**LISTS)
    assert "\n" not in str(error.value)


def test_loops_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.1)
    template = LimitedTemplate("own", "{% for a in history %}" * 8 + "{% endfor %}" * 8)
    assert template.render(history=["a"]) == ""
    with pytest.raises(LorarecError, match=r"more than 0\.1 s"):
        template.render(history=["a"] * 100)


def test_waiting_for_the_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.1)

    def finalize(value: str) -> str:
        time.sleep(0.2)
        return value

    assert LimitedTemplate("own", "{{ candidate }}{{ candidate }}", finalize).render(candidate="a") == "aa"


@given(
    st.text(alphabet="{}%#|~()[]'\" abfor history in if endif endfor join candidate 0123456789*.,:=_\\", max_size=60)
)
def test_any_source_renders_or_is_refused(source: str) -> None:
    with suppress(LorarecError):
        LimitedTemplate("own", source).render(**LISTS)


def test_bundled_templates_keep_to_the_limits() -> None:
    for name in BUNDLED:
        for readout in READOUTS:
            assert Template(readout, name).pieces(3, 2).prompt


def test_files_are_read_once_and_compared_by_text(tmp_path) -> None:
    (tmp_path / "own.j2").write_text("{{ candidate }}?")
    read = read_template(tmp_path / "own.j2")
    assert read == TemplateText("elsewhere", "{{ candidate }}?")
    (tmp_path / "own.j2").unlink()
    assert Template("verdict", read).pieces(0, 0).suffix == (Literal("?"),)
    assert read_template("click") == "click-v1"
    (tmp_path / "binary.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(LorarecError, match=r"binary\.j2 cannot be read: it is not UTF-8"):
        read_template(tmp_path / "binary.j2")
    with pytest.raises(LorarecError, match="longer than"):
        Template("verdict", "/dev/zero")
