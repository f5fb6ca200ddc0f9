"""P5 (Geng et al., RecSys 2022): one encoder-decoder answers several kinds of prompts with the id of an item.

Simplified: a small T5 made on the spot, not a pre-trained one; the words of each prompt are one token, and sequential
and direct recommendation have one prompt or two each; the prompts for ratings, explanations and reviews are left out,
since nothing here is told of them. An id is two tokens, with whole-word embeddings; items are numbered in the order in
which training histories name them (sequential indexing; Hua et al., SIGIR-AP 2023), so that neighbours share a token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from lorarec.data import CANDIDATES, HISTORY, USER
from lorarec.errors import refuse_out_of_range
from lorarec.io import track
from lorarec.recommenders.bpr_mf import chose_everything, not_chosen
from lorarec.recommenders.dot_product import UNKNOWN
from lorarec.recommenders.options import takes
from lorarec.recommenders.p5_prompts import NOTHING, Prompt, Prompts, together
from lorarec.recommenders.sequential.trainer import batches_by_length, next_item_positions
from lorarec.recommenders.training_data import TrainingData, places
from lorarec.scoring import evaluation_mode
from lorarec.training import EarlyStopping

HEADS = 4
_CASES_AT_ONCE = 64


@dataclass(frozen=True)
class P5Config:
    """How P5 is made.

    Attributes:
        epochs: at most so many passes over the training histories.
        patience: epochs without a better validation figure after which it stops.
        width: of the states.
        depth: layers of the encoder, and of the decoder.
        longest: the latest items of a history that are read.
        prefixes: next items of a history that an epoch asks for, drawn anew for each; None for all.
        negatives: wrong items in the list of a direct prompt.
        batch: prompts.
        lr: learning rate of Adam.
        dropout: in training.

    Raises:
        LorarecError: a number is out of range.
    """

    epochs: int = 20
    patience: int = 3
    width: int = 64
    depth: int = 2
    longest: int = 20
    prefixes: int | None = None
    negatives: int = 9
    batch: int = 128
    lr: float = 2e-3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        at_least_one = ("patience", "width", "depth", "longest", "prefixes", "negatives", "batch")
        refuse_out_of_range(self, at_least_one, ("epochs", "dropout"), ("lr",))


class P5(nn.Module):
    """T5 whose input is also told which tokens are of one word (Section 4.1)."""

    def __init__(self, vocabulary: int, options: P5Config) -> None:
        super().__init__()
        config = T5Config(  # type: ignore[call-arg]
            vocab_size=vocabulary,
            d_model=options.width,
            d_kv=-(-options.width // HEADS),
            d_ff=2 * options.width,
            num_layers=options.depth,
            num_heads=HEADS,
            dropout_rate=options.dropout,
            decoder_start_token_id=NOTHING,
            pad_token_id=NOTHING,
            use_cache=False,
        )
        self.t5 = T5ForConditionalGeneration(config)
        self.words = nn.Embedding(2 + max(options.longest, options.negatives + 1), options.width)
        nn.init.normal_(self.words.weight, std=0.1)

    def encode(self, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """(prompts, longest, width) states, and (prompts, longest) where there is a token."""
        tokens, words = together(prompts)
        there = tokens != NOTHING
        told = self.t5.shared(tokens) + self.words(words)
        return self.t5.encoder(inputs_embeds=told, attention_mask=there.long()).last_hidden_state, there

    def likelihoods(self, states: torch.Tensor, there: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """(n,) log-likelihoods of answers.

        Args:
            states: (n, length, width) of the encoder.
            there: (n, length).
            answers: (n, 2) tokens of items.
        """
        said = nn.functional.pad(answers[:, :1], (1, 0), value=NOTHING)
        encoded = BaseModelOutput(last_hidden_state=states)
        logits = self.t5(encoder_outputs=encoded, attention_mask=there.long(), decoder_input_ids=said).logits
        return logits.log_softmax(-1).gather(2, answers[..., None]).sum((1, 2))


class P5Scorer:
    """Scores: the log-likelihood of a candidate's id as the next item; those that nobody chose come last.

    All candidates of a case share one pass of the encoder.

    Attributes:
        about: one line for reports.
    """

    def __init__(self, material: TrainingData, model: P5, prompts: Prompts, options: P5Config) -> None:
        self.model = model
        self.prompts = prompts
        self.longest = options.longest
        self.number = number_items(material)
        self.user = {user: number for number, user in enumerate(material.users)}
        self.about = f"P5, ids of two tokens, width {options.width}"

    @torch.no_grad()
    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        with evaluation_mode(self.model):
            return [scores for part in cases.iter_slices(_CASES_AT_ONCE) for scores in self._scores(part)]

    def _scores(self, cases: pl.DataFrame) -> list[np.ndarray]:
        histories = places(cases[HISTORY], self.number)
        users = [self.user.get(user) for user in cases[USER].to_list()]
        asked = [
            self.prompts.next_item(history[-self.longest :], user)
            for history, user in zip(histories, users, strict=True)
        ]
        states, there = self.model.encode(asked)
        candidates = cases[CANDIDATES].to_list()
        sizes = [len(each) for each in candidates]
        numbers = np.array([self.number.get(item, -1) for each in candidates for item in each])
        case = torch.arange(len(cases)).repeat_interleave(torch.tensor(sizes))
        answers = torch.from_numpy(self.prompts.items.tokens(numbers.clip(0)))
        scores = self.model.likelihoods(states[case], there[case], answers).numpy()
        return np.split(np.where(numbers < 0, UNKNOWN, scores), np.cumsum(sizes)[:-1])


@takes(P5Config)
def p5(material: TrainingData, **options: Any) -> P5Scorer:
    """P5; options of `P5Config`. Users that training does not have are asked for by their history alone."""
    chosen = P5Config(**options)
    prompts = Prompts(len(material.catalogue), len(material.users))
    torch.manual_seed(material.seed)
    generator = np.random.default_rng(material.seed)
    model = P5(prompts.vocabulary, chosen)
    optimizer = torch.optim.Adam(model.parameters(), chosen.lr)
    scorer = P5Scorer(material, model, prompts, chosen)
    histories = places(material.split.train[HISTORY], scorer.number)
    best = EarlyStopping(model, chosen.patience)
    for _ in track(range(chosen.epochs), "P5", material.progress):
        model.train()
        asked = list(tasks(histories, prompts, chosen, generator))
        for part in batches_by_length([len(prompt.tokens) for prompt, _ in asked], chosen.batch, generator):
            states, there = model.encode([asked[place][0] for place in part])
            answers = prompts.items.tokens(np.array([asked[place][1] for place in part]))
            optimizer.zero_grad()
            (-model.likelihoods(states, there, torch.from_numpy(answers)).mean()).backward()
            optimizer.step()
        if best.ends(material.figure(scorer)):
            break
    best.restore()
    model.eval()
    return scorer


def number_items(material: TrainingData) -> dict[str, int]:
    """Item id -> its number: items in the order in which training histories name them first."""
    named = material.split.train[HISTORY].explode().drop_nulls().to_list()
    return {item: number for number, item in enumerate(dict.fromkeys(named))}


def tasks(
    histories: list[np.ndarray], prompts: Prompts, options: P5Config, generator: np.random.Generator
) -> Iterator[tuple[Prompt, int]]:
    """Prompts, and the number of the item that answers each.

    For each user of two items or more a sequential prompt for every item but the first, or for some that are drawn, of
    which half name the user, and a direct one for an item of the history unless the user chose every item.
    """
    items = prompts.items.count
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    taken = np.unique(owners * items + np.concatenate(histories))
    users = [user for user, history in enumerate(histories) if len(history) > 1]
    everything = chose_everything(len(histories), items, taken)
    asked = np.array([user for user in users if not everything[user]], np.int64)
    drawn = not_chosen(np.repeat(asked, options.negatives), items, taken, generator)
    wrong = dict(zip(asked.tolist(), drawn.reshape(-1, options.negatives), strict=True))
    for user in users:
        history = histories[user]
        for end in next_item_positions(len(history), options.prefixes, generator):
            named = user if generator.random() < 0.5 else None
            yield prompts.next_item(history[max(0, end - options.longest) : end], named), int(history[end])
        if user in wrong:
            true = generator.choice(history)
            yield prompts.direct(generator.permutation(np.append(wrong[user], true)), user), int(true)
