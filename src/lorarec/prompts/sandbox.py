"""Rendering of untrusted Jinja2 templates under limits of size and time.

Jinja2's sandbox protects Python's objects from a template, but not memory and time. So a template may use only a few
constructs, none of which lets its text grow faster than the lists that it is given, and the limits are checked between
the steps of its loops.
"""

import time
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from lorarec.errors import LorarecError

#: Limits on the characters of a template, and of the text that it renders to.
SOURCE_LIMIT, TEXT_LIMIT = 1 << 16, 1 << 20
#: Limit on the seconds of rendering, of this thread's time on the processor, so that a busy machine refuses nothing.
SECONDS = 2.0
#: Limits on the number of a template's constructs, and on the depth of their nesting.
CONSTRUCTS, DEPTH = 1000, 40
#: Limit on the characters of a filter's argument, such as the separator of join.
ARGUMENT = 100

CONSTRUCTS_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const, nodes.Getitem),
    *(nodes.Getattr, nodes.Slice, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Neg, nodes.Add, nodes.Sub, nodes.Concat, nodes.Filter, nodes.Test, nodes.List, nodes.Tuple),
)
FILTERS = frozenset(
    ("capitalize", "count", "default", "first", "join", "last", "length", "lower", "reverse", "title", "trim", "upper")
)
TESTS = frozenset(("defined", "even", "in", "none", "odd", "undefined"))
LOOP = frozenset(("first", "index", "index0", "last", "length", "revindex", "revindex0"))
#: A variable whose value is empty text. Each step of a loop writes it, after which the limits are checked.
TURN = "__turn"
#: Exceptions that are raised by expressions over values of the wrong kind.
WRONG = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class LimitedTemplate:
    """A Jinja2 template whose memory and time are bounded.

    It may contain text, `if`, `for`, conditional and comparing expressions, items and slices, `~`, sums with a number,
    the filters `FILTERS` and the tests `TESTS`.

    Args:
        name: Name of the template in error messages.
        source: Jinja2 source.
        finalize: Function that is applied to the value of each expression before it is written (as in Jinja2).

    Raises:
        LorarecError: The source is too long, is not valid Jinja2, or contains other constructs.
    """

    def __init__(self, name: str, source: str, finalize: Callable[..., Any] | None = None) -> None:
        self.name = name
        if len(source) > SOURCE_LIMIT:
            raise LorarecError(f"template {name} is longer than {SOURCE_LIMIT:,} characters: shorten it")
        environment = SandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            finalize=finalize,
        )
        environment.globals.clear()
        try:
            tree = environment.parse(source)
            self._check(tree)
            for loop in tree.find_all(nodes.For):
                turn = nodes.Output([nodes.Name(TURN, "load", lineno=loop.lineno)], lineno=loop.lineno)
                loop.body.insert(0, turn.set_environment(environment))
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            message = " ".join((error.message or "").split())[:200]
            raise LorarecError(f"template {name} is not valid Jinja2: {message} (line {error.lineno})") from error
        except (RecursionError, SyntaxError, MemoryError) as error:
            raise LorarecError(f"template {name} is nested too deep: simplify it") from error
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, LorarecError):
                raise
            raise LorarecError(f"template {name} is not valid Jinja2: it contains a number that is too long") from error

    def render(self, **values: Any) -> str:
        """Render the template with values for its variables.

        Raises:
            LorarecError: A variable has no value or one of the wrong kind, or the text or the time exceeds its limit.
        """
        deadline = time.thread_time() + SECONDS
        parts, size = [], 0
        try:
            for part in self._template.generate(**values, **{TURN: ""}):
                size += len(part)
                if size > TEXT_LIMIT:
                    raise LorarecError(f"template {self.name} renders to more than {TEXT_LIMIT:,} characters")
                if time.thread_time() > deadline:
                    raise LorarecError(f"template {self.name} takes more than {SECONDS:g} s to render: simplify it")
                if part:
                    parts.append(part)
        except WRONG as error:
            if isinstance(error, LorarecError):
                raise
            message = " ".join(str(error).split())[:200]
            raise LorarecError(f"template {self.name} cannot be rendered: {message}") from error
        return "".join(parts)

    def _check(self, tree: nodes.Template) -> None:
        waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
        seen = 0
        while waiting:
            node, depth = waiting.pop()
            seen += 1
            if seen > CONSTRUCTS or depth > DEPTH:
                raise LorarecError(f"template {self.name} has too many or too deep constructs: simplify it")
            if not isinstance(node, CONSTRUCTS_ALLOWED) or not _is_bounded(node):
                name = getattr(node, "name", None) if isinstance(node, nodes.Filter | nodes.Test) else None
                raise LorarecError(
                    f"template {self.name} must not use {name or type(node).__name__} as in line {node.lineno}: it may "
                    f"use if, for, items, comparisons, ~ and the filters {', '.join(sorted(FILTERS))}"
                )
            waiting += [(child, depth + 1) for child in node.iter_child_nodes()]


def _is_bounded(node: nodes.Node) -> bool:
    """Return whether an allowed construct is used in a way that bounds its result."""
    if isinstance(node, nodes.Getattr):
        return isinstance(node.node, nodes.Name) and node.node.name == "loop" and node.attr in LOOP
    if isinstance(node, nodes.For):
        return not node.recursive
    if isinstance(node, nodes.Add | nodes.Sub):  # sums of lists are lists
        sides = (node.left, node.right)
        return any(isinstance(side, nodes.Const) and isinstance(side.value, int) for side in sides)
    if isinstance(node, nodes.Filter):
        return node.name in FILTERS and _are_short(node)
    if isinstance(node, nodes.Test):
        return node.name in TESTS and not node.dyn_args and not node.dyn_kwargs
    return True


def _are_short(node: nodes.Filter) -> bool:
    """Return whether the arguments of a filter are short constants."""
    if node.node is None or node.dyn_args or node.dyn_kwargs or node.kwargs:
        return False
    return all(isinstance(each, nodes.Const) and len(str(each.value)) <= ARGUMENT for each in node.args)
