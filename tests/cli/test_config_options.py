"""Options of the command line that are made from option dataclasses."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from lorarec.cli.config_options import Only, config_options
from lorarec.cli.messages import Verb
from lorarec.errors import LorarecError
from lorarec.options import option


@dataclass(frozen=True)
class Config:
    """Options of a model."""

    id: str = option("embedded", "Name of the model.")
    learning_rate: float = option(1e-3, "Peak learning rate.")
    loss: Literal["listwise", "pointwise"] = option("listwise", "Loss function.")
    samples: int | None = option(None, "Number of samples; None for all.", "Training")
    new_samples: int | None = option(None, "The same of new items; `samples` or `learning_rate` if None.", "Training")
    prior: float | Literal["auto"] = option("auto", "Prior of new items.")
    evidence: bool = option(True, "Read evidence.")
    resume: bool = option(False, "Continue.")

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise LorarecError(f"option learning_rate must be positive, got {self.learning_rate}")


def _invoke(function: Any, *words: str) -> Any:
    app = typer.Typer()
    app.command(cls=Verb)(config_options(function))
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "120"})


def test_each_field_is_an_option() -> None:
    made: list[Config] = []

    def verb(*, model: Config, out: str = "here") -> None:
        made.append(model)

    assert _invoke(verb).exit_code == 0
    words = ["--model", "gpt2", "--learning-rate", "0.1", "--loss", "pointwise", "--samples", "7", "--no-evidence"]
    assert _invoke(verb, *words, "--resume").exit_code == 0
    assert made == [Config(), Config("gpt2", 0.1, "pointwise", 7, None, "auto", False, True)]


def test_a_number_or_a_word_is_text() -> None:
    made: list[Config] = []

    def verb(*, model: Annotated[Config, Only(("prior",))]) -> None:
        made.append(model)

    assert _invoke(verb, "--prior", "auto").exit_code == 0
    assert _invoke(verb, "--prior", "0.5").exit_code == 0
    assert [config.prior for config in made] == ["auto", "0.5"]


def test_help_is_that_of_the_fields() -> None:
    def verb(*, model: Config) -> None:
        """Do nothing."""

    page = _invoke(verb, "--help").output
    assert "Peak learning rate. [default: 0.001]" in page
    assert "<listwise|pointwise>" in page
    assert "Number of samples; unset for all." in page
    assert "`samples` or `--learning-rate` if unset" in page
    assert "─ Training ─" in page
    assert "--no-resume" not in page


def test_some_fields_only() -> None:
    made: list[Config] = []

    def verb(*, model: Annotated[Config, Only(("loss",))]) -> None:
        made.append(model)

    assert _invoke(verb, "--loss", "pointwise").exit_code == 0
    assert made == [Config(loss="pointwise")]
    assert _invoke(verb, "--samples", "7").exit_code == 2


def test_choices_and_types_are_checked() -> None:
    def verb(*, model: Config) -> None:
        raise AssertionError

    assert "'listwise', 'pointwise'" in " ".join(_invoke(verb, "--loss", "best").output.split())
    assert _invoke(verb, "--samples", "many").exit_code == 2


def test_refused_values_are_named_by_their_flag() -> None:
    def verb(*, model: Config) -> None:
        raise AssertionError

    with pytest.raises(LorarecError, match=r"option --learning-rate must be positive, got -1\.0"):
        raise _invoke(verb, "--learning-rate", "-1").exception
