"""Generation of ranked lists of titles by greedy decoding, as in the paper (MoLoRec, arXiv 2502.08271).

Unconstrained decoding may generate any text, and titles are matched to the candidates exactly. Constrained decoding
generates only candidates that are not in the list yet.
"""

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import NOT_FINITE, PromptReader


class TitleList:
    """The state of a list of titles that a decoder generates token by token.

    Args:
        builder: A prompt builder with the readout `likelihood`.
        example: A prompt of the builder, with the candidates as branches.
        count: The number of titles to generate.
        constrained: Whether only candidates that are not listed yet can be generated.
        max_title_tokens: The length at which an unconstrained title without an end is truncated, at least that of the
            longest candidate.

    Attributes:
        ids: The token ids of the prompt and of the list so far.
        listed: For each finished title the index of the candidate with the same tokens, or None.
        stop: The token ids that end a title.

    Raises:
        LorarecError: The builder's readout is not `likelihood`.
    """

    def __init__(
        self,
        builder: PromptBuilder,
        example: Example,
        count: int = 5,
        constrained: bool = False,
        max_title_tokens: int = 64,
    ) -> None:
        if builder.readout != "likelihood":
            raise LorarecError(
                f"generation needs a prompt that lists the candidates, but the readout is {builder.readout}: "
                "use readout=likelihood"
            )
        self.ids = list(example.prompt)
        self.listed: list[int | None] = []
        self.stop = {*(branch[-1] for branch in example.branches), builder.tokenizer.eos_token_id}
        self._count = min(count, len(example.branches))
        self._constrained = constrained
        self._max_title_tokens = max([max_title_tokens, *map(len, example.branches)])
        self._open = dict(enumerate(example.branches))
        self._title: list[int] = []
        # Every line of the list begins with the same tokens before the title as the last line of the prompt.
        self._lead = _line_start(builder, example.prompt) if builder.template.chat is None else []

    @property
    def done(self) -> bool:
        """Whether all titles are finished."""
        return len(self.listed) == self._count

    @property
    def room(self) -> int:
        """The number of tokens by which the current title may still grow."""
        return self._max_title_tokens - len(self._title)

    @property
    def remaining(self) -> int:
        """The largest number of tokens by which the whole list may still grow."""
        return (self._count - len(self.listed)) * (self._max_title_tokens + len(self._lead))

    def allowed(self) -> list[int] | None:
        """Return the token ids that are allowed next; None if all are."""
        if not self._constrained:
            return None
        written = len(self._title)
        return sorted({branch[written] for branch in self._open.values() if branch[:written] == self._title})

    def add(self, token: int) -> None:
        """Append a token that the model has generated."""
        self._title.append(token)
        self.ids.append(token)
        if token not in self.stop and self.room > 0:
            return
        match = next((i for i, branch in self._open.items() if branch == self._title), None)
        if match is not None:
            del self._open[match]
        self.listed.append(match)
        self.ids += self._lead
        self._title = []


def _line_start(builder: PromptBuilder, prompt: list[int]) -> list[int]:
    """Return the token ids of the prompt's last line."""
    for place in range(len(prompt) - 1, -1, -1):
        _, separator, after = str(builder.tokenizer.decode(prompt[place])).rpartition("\n")
        if separator:
            return [*builder.text(after), *prompt[place + 1 :]]
    return []


@torch.no_grad()
def generate_titles(
    backbone: Backbone,
    builder: PromptBuilder,
    example: Example,
    count: int = 5,
    constrained: bool = False,
    max_title_tokens: int = 64,
) -> list[int | None]:
    """Generate a list of titles greedily and match each title to the candidates.

    Args:
        backbone: The language model.
        builder, example, count, constrained, max_title_tokens: As for `TitleList`.

    Returns:
        For each title of the list the index of the candidate with the same tokens, or None.

    Raises:
        LorarecError: The builder's readout is not `likelihood`, or a logit is NaN.
    """
    titles = TitleList(builder, example, count, constrained, max_title_tokens)
    reader = PromptReader(backbone.model, [titles.ids])
    while not titles.done:
        read = len(titles.ids)
        titles.add(_best(reader.logits[0], titles.allowed()))
        if not titles.done:
            reader.extend(torch.tensor([titles.ids[read:]], device=backbone.model.device))
    return titles.listed


def _best(logits: torch.Tensor, allowed: list[int] | None) -> int:
    if logits.isnan().any():
        raise LorarecError(f"a logit of the next token is NaN: {NOT_FINITE}")
    if allowed is None:
        return int(logits.argmax())
    return allowed[int(logits[allowed].argmax())]
