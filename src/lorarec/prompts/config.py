"""Options of prompts: readout, template, lengths and evidence."""

from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

from lorarec.data import EvidenceModel, read_evidence_model
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import convert_options, document_options, option

Readout = Literal["verdict", "likelihood"]
READOUTS: tuple[str, ...] = get_args(Readout)
PROMPTS = "Prompts"
EVIDENCE_HELP = "Say after each candidate how often other users chose it together with the history."


@dataclass(frozen=True)
class TemplateText:
    """The text of a custom template; two with the same text are equal.

    Attributes:
        name: Name of the template in messages.
        text: Jinja2 source of the template.
    """

    name: str = field(compare=False)
    text: str


@document_options
@dataclass(frozen=True)
class PromptConfig:
    """Options of the prompts of a model; an adapter must get those that it was trained with.

    A custom template may use a limited set of Jinja2 constructs (see `lorarec.prompts.sandbox`).

    Raises:
        LorarecError: If a value is of the wrong type or out of range.

    Examples:
        >>> from lorarec import PromptConfig
        >>> PromptConfig(readout="likelihood", max_history=20).max_title_tokens
        32
    """

    readout: Readout = option(
        "verdict", "Score of a candidate: log-odds of yes against no (verdict), or log-probability of its title."
    )
    template: str | TemplateText | None = option(
        None, "Jinja2 file or bundled template to prompt with; None for the readout's own.", PROMPTS
    )
    max_tokens: int = option(1024, "Maximum number of tokens of a prompt; the oldest items are dropped first.", PROMPTS)
    max_title_tokens: int = option(32, "Maximum number of tokens of a title.", PROMPTS)
    max_history: int = option(10, "Number of latest items of the history in a prompt.", PROMPTS)
    evidence: bool = option(False, EVIDENCE_HELP, PROMPTS)
    evidence_model: EvidenceModel | None = option(
        None,
        "Next-item model that says how likely a candidate is next, in a second word after that of co-occurrence: "
        "sasrec, or a mapping of its options, such as {epochs: 30, hidden_size: 64}; None for no second word.",
        PROMPTS,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence_model", read_evidence_model(self.evidence_model))
        convert_options(self)
        if self.evidence_model is not None and not self.evidence:
            raise LorarecError("option evidence_model adds a word to evidence: use it with evidence=True")
        refuse_out_of_range(self, ("max_tokens", "max_title_tokens", "max_history"), (), ())

    def with_readout(self, readout: str | None) -> "PromptConfig":
        """Return these options with another readout, or unchanged if it is None.

        A bundled template of the former readout is replaced by the same version of that of the new readout.
        """
        if readout is None or readout == self.readout:
            return self
        template = self.template
        if isinstance(template, str) and template.startswith(f"{self.readout}-v"):
            template = template.replace(self.readout, readout, 1)
        return replace(self, readout=cast(Readout, readout), template=template)
