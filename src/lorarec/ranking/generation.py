"""Generation mode: a greedy list of titles, as the paper reads its rankings.

Unconstrained decoding writes whatever the model likes and is matched to the candidates exactly; constrained decoding
can only write candidates that are not in the list yet.
"""

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import PromptReader


class TitleList:
    """A list of titles while it is being written, token by token, whoever decodes it.

    Args:
        builder: a `likelihood` builder.
        example: what it built: the prompt, and the candidates as branches.
        count: titles to write.
        constrained: only candidates not listed yet can be written.
        max_title_tokens: where an unconstrained title that does not end is cut.

    Attributes:
        ids: the prompt and all that is written; a decoder continues it.
        listed: for each finished title the index of the candidate it equals (token by token), or None.
        stop: the tokens that end a title.

    Raises:
        LorarecError: the builder's readout is not `likelihood`.
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
            raise LorarecError("generation needs a prompt that lists the candidates: use readout=likelihood")
        self.ids = list(example.prompt)
        self.listed: list[int | None] = []
        self.stop = {*(branch[-1] for branch in example.branches), builder.tokenizer.eos_token_id}
        self._count = min(count, len(example.branches))
        self._constrained = constrained
        self._max_title_tokens = max_title_tokens
        self._open = dict(enumerate(example.branches))
        self._title: list[int] = []
        # What stands between the line break and the title in the prompt's last line stands there in every line.
        self._lead = _line_start(builder, example.prompt) if builder.template.chat is None else []

    @property
    def done(self) -> bool:
        """Whether all titles are written."""
        return len(self.listed) == self._count

    @property
    def room(self) -> int:
        """Tokens that the title being written may still take."""
        return self._max_title_tokens - len(self._title)

    @property
    def ahead(self) -> int:
        """Tokens that the whole list may still take."""
        return (self._count - len(self.listed)) * (self._max_title_tokens + len(self._lead))

    def allowed(self) -> list[int] | None:
        """The tokens that may come next; None where all may."""
        if not self._constrained:
            return None
        written = len(self._title)
        return sorted({branch[written] for branch in self._open.values() if branch[:written] == self._title})

    def add(self, token: int) -> None:
        """Append what the model wrote."""
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
        _, found, after = str(builder.tokenizer.decode(prompt[place])).rpartition("\n")
        if found:
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
    """Decode a list of titles greedily and match each to the candidates.

    Args:
        builder, example, count, constrained, max_title_tokens: see `TitleList`.

    Returns:
        For each title written the index of the candidate it equals (token by token), or None: the place is lost.

    Raises:
        LorarecError: the builder's readout is not `likelihood`.
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
    if allowed is None:
        return int(logits.argmax())
    return allowed[int(logits[allowed].argmax())]
