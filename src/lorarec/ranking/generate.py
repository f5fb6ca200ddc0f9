"""Generation mode: a greedy list of titles, as the paper reads its rankings.

Unconstrained decoding writes whatever the model likes and is matched to the candidates exactly; constrained decoding
can only write candidates that are not in the list yet.
"""

import torch
from transformers import DynamicCache

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import finish_logits, trunk


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
        builder: a `likelihood` builder.
        example: what it built: the prompt, and the candidates as branches.
        count: titles to write.
        constrained: only candidates not listed yet can be written.
        max_title_tokens: where an unconstrained title that does not end is cut.

    Returns:
        For each title written the index of the candidate it equals (token by token), or None: the place is lost.

    Raises:
        LorarecError: the builder's readout is not `likelihood`.
    """
    if builder.readout != "likelihood":
        raise LorarecError("generation needs a prompt that lists the candidates: use readout=likelihood")
    open_branches = dict(enumerate(example.branches))
    stop = {example.branches[0][-1], backbone.tokenizer.eos_token_id}
    # What stands between the line break and the title in the prompt's last line stands there in every line.
    lead = list(builder.tokens(str(backbone.tokenizer.decode(example.prompt)).rpartition("\n")[2]))
    lead = lead if builder.template.chat is None else []
    cache = DynamicCache()
    ids, listed = list(example.prompt), []
    for _ in range(min(count, len(example.branches))):
        title: list[int] = []
        while True:
            logits = _next_logits(backbone, ids, cache)
            allowed = {branch[len(title)] for branch in open_branches.values() if branch[: len(title)] == title}
            title.append(_best(logits, sorted(allowed) if constrained else None))
            ids = title[-1:]
            if title[-1] in stop or len(title) >= max_title_tokens:
                break
        match = next((i for i, branch in open_branches.items() if branch == title), None)
        listed.append(match)
        if match is not None:
            del open_branches[match]
        ids = [*ids, *lead]
    return listed


def _next_logits(backbone: Backbone, ids: list[int], cache: DynamicCache) -> torch.Tensor:
    model = backbone.model
    inputs = torch.tensor([ids], device=model.device)
    hidden = trunk(model)(input_ids=inputs, past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
    return finish_logits(model.config, model.get_output_embeddings()(hidden))


def _best(logits: torch.Tensor, allowed: list[int] | None) -> int:
    if allowed is None:
        return int(logits.argmax())
    return allowed[int(logits[allowed].argmax())]
