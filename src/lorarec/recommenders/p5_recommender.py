"""P5 (Geng et al., RecSys 2022): an encoder-decoder that answers several kinds of prompts with the id of an item.

Simplified: a small T5 with random initial weights instead of a pre-trained one; the words of each prompt are one token,
and sequential and direct recommendation have one or two prompts each; the prompts for ratings, explanations and reviews
are left out, since the data have none of them. An id is two tokens, with whole-word embeddings; items are numbered in
the order in which they first occur in training histories (sequential indexing; Hua et al., SIGIR-AP 2023), so that
neighbours share a token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from lorarec.data import CANDIDATES, HISTORY, USER
from lorarec.errors import refuse_out_of_range
from lorarec.io import track
from lorarec.options import document_options, option
from lorarec.recommenders.bpr_mf import chose_everything, sample_negatives
from lorarec.recommenders.dot_product import UNKNOWN_ITEM_SCORE
from lorarec.recommenders.early_stopping import CHECKED_CASES, EarlyStopping, refuse_divergence
from lorarec.recommenders.interactions import known_items
from lorarec.recommenders.p5_prompts import PADDING_TOKEN, P5Prompt, P5PromptBuilder, collate
from lorarec.recommenders.recommender import ScorerRecommender
from lorarec.recommenders.recommender_config import RecommenderConfig
from lorarec.recommenders.sequential.trainer import batches_by_length, next_item_positions
from lorarec.recommenders.training_data import TrainingData
from lorarec.scoring import evaluation_mode

NUM_HEADS = 4
_CASES_AT_ONCE = 64
_CANDIDATES_AT_ONCE = 8192  # each reads a copy of the encoded prompt


@document_options
@dataclass(frozen=True)
class P5Config(RecommenderConfig):
    """Options of `P5`."""

    epochs: int = option(20, "Maximum number of passes over the training histories.")
    patience: int = option(3, "Number of epochs without a better validation NDCG@10 after which training stops.")
    hidden_size: int = option(64, "Size of the states.")
    num_layers: int = option(2, "Number of layers of the encoder, and of the decoder.")
    max_history: int = option(20, "Number of items of a history that are read, the latest.")
    prefixes: int | None = option(None, "Number of next items learned per history and epoch; all if None.")
    negatives: int = option(9, "Number of wrong items in the list of a direct prompt.")
    batch_size: int = option(128, "Number of prompts per step.")
    learning_rate: float = option(2e-3, "Learning rate of Adam.")
    dropout: float = option(0.1, "Dropout probability in training.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = ("patience", "hidden_size", "num_layers", "max_history", "prefixes", "negatives", "batch_size")
        refuse_out_of_range(self, at_least_one, ("epochs",), ("learning_rate",), ("dropout",))


class P5Model(nn.Module):
    """T5 with whole-word embeddings, which mark the tokens of one word (section 4.1)."""

    def __init__(self, vocabulary_size: int, config: P5Config) -> None:
        super().__init__()
        t5_config = T5Config(  # type: ignore[call-arg]
            vocab_size=vocabulary_size,
            d_model=config.hidden_size,
            d_kv=-(-config.hidden_size // NUM_HEADS),
            d_ff=2 * config.hidden_size,
            num_layers=config.num_layers,
            num_heads=NUM_HEADS,
            dropout_rate=config.dropout,
            decoder_start_token_id=PADDING_TOKEN,
            pad_token_id=PADDING_TOKEN,
            use_cache=False,
        )
        self.t5 = T5ForConditionalGeneration(t5_config)
        self.words = nn.Embedding(2 + max(config.max_history, config.negatives + 1), config.hidden_size)
        nn.init.normal_(self.words.weight, std=0.1)

    def encode(self, prompts: list[P5Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return encoder states (prompts, length, hidden_size) and the mask (prompts, length) of tokens."""
        tokens, words = collate(prompts)
        mask = tokens != PADDING_TOKEN
        embedded = self.t5.shared(tokens) + self.words(words)
        return self.t5.encoder(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state, mask

    def log_likelihoods(self, states: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihoods (n,) of answers.

        Args:
            states: Encoder states (n, length, hidden_size).
            mask: Mask of tokens (n, length).
            answers: Tokens of items (n, 2).
        """
        decoder_input = nn.functional.pad(answers[:, :1], (1, 0), value=PADDING_TOKEN)
        encoded = BaseModelOutput(last_hidden_state=states)
        logits = self.t5(encoder_outputs=encoded, attention_mask=mask.long(), decoder_input_ids=decoder_input).logits
        return logits.log_softmax(-1).gather(2, answers[..., None]).sum((1, 2))


class P5Scorer:
    """Score a candidate by the log-likelihood of its id as the next item.

    All candidates of a case share one pass of the encoder. Items without training interactions are ranked last. For
    users without any, the prompt contains the history alone.

    Attributes:
        about: One line for reports.
    """

    def __init__(self, data: TrainingData, model: P5Model, prompts: P5PromptBuilder, config: P5Config) -> None:
        self.model = model
        self.prompts = prompts
        self.max_history = config.max_history
        self.item_numbers = number_items(data)
        self.user_numbers = {user: number for number, user in enumerate(data.users)}
        self.about = f"P5, ids of two tokens, hidden size {config.hidden_size}"

    @torch.no_grad()
    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        with evaluation_mode(self.model):
            return [scores for part in cases.iter_slices(_CASES_AT_ONCE) for scores in self._score(part)]

    def _score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        histories = known_items(cases[HISTORY], self.item_numbers)
        users = [self.user_numbers.get(user) for user in cases[USER].to_list()]
        prompts = [
            self.prompts.next_item(history[-self.max_history :], user)
            for history, user in zip(histories, users, strict=True)
        ]
        states, mask = self.model.encode(prompts)
        candidates = cases[CANDIDATES].to_list()
        sizes = [len(each) for each in candidates]
        numbers = np.array([self.item_numbers.get(item, -1) for each in candidates for item in each])
        case = torch.arange(len(cases)).repeat_interleave(torch.tensor(sizes))
        answers = torch.from_numpy(self.prompts.items.tokens(numbers.clip(0)))
        batches = zip(case.split(_CANDIDATES_AT_ONCE), answers.split(_CANDIDATES_AT_ONCE), strict=True)
        found = [self.model.log_likelihoods(states[cases_of], mask[cases_of], ids) for cases_of, ids in batches]
        scores = torch.cat(found).numpy()
        return np.split(np.where(numbers < 0, UNKNOWN_ITEM_SCORE, scores), np.cumsum(sizes)[:-1])


class P5(ScorerRecommender[P5Config]):
    """Generate the id of the next item with a small T5; see `P5Scorer`."""

    config_class = P5Config

    def fit(self, data: TrainingData) -> Self:
        """Train on prompts from the training histories; NDCG@10 on validation cases chooses the epoch.

        Without validation cases it is the last epoch.
        """
        config = self.config
        prompts = P5PromptBuilder(len(data.train_items), len(data.users))
        torch.manual_seed(data.seed)
        generator = np.random.default_rng(data.seed)
        model = P5Model(prompts.vocabulary_size, config)
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
        scorer = P5Scorer(data, model, prompts, config)
        histories = known_items(data.split.train[HISTORY], scorer.item_numbers)
        stopping = EarlyStopping(model, config.patience)
        for _ in track(range(config.epochs), "P5", data.progress):
            model.train()
            examples = list(training_prompts(histories, prompts, config, generator))
            lengths = [len(prompt.tokens) for prompt, _ in examples]
            for batch in batches_by_length(lengths, config.batch_size, generator):
                states, mask = model.encode([examples[place][0] for place in batch])
                answers = prompts.items.tokens(np.array([examples[place][1] for place in batch]))
                optimizer.zero_grad()
                (-model.log_likelihoods(states, mask, torch.from_numpy(answers)).mean()).backward()
                optimizer.step()
            refuse_divergence(model, "P5", _scores(model, prompts, examples[:CHECKED_CASES]))
            if data.has_validation_cases and stopping.step(data.validation_ndcg(scorer)):
                break
        stopping.restore()
        model.eval()
        self.scorer = scorer
        return self


@torch.no_grad()
def _scores(model: P5Model, prompts: P5PromptBuilder, examples: list[tuple[P5Prompt, int]]) -> torch.Tensor:
    """Return the log-likelihoods (n,) of the answers of examples."""
    if not examples:
        return torch.empty(0)
    with evaluation_mode(model):
        states, mask = model.encode([prompt for prompt, _ in examples])
        answers = prompts.items.tokens(np.array([answer for _, answer in examples]))
        return model.log_likelihoods(states, mask, torch.from_numpy(answers))


def number_items(data: TrainingData) -> dict[str, int]:
    """Return the number of each item: its place in the order in which items first occur in training histories."""
    items = data.split.train[HISTORY].explode().drop_nulls().to_list()
    return {item: number for number, item in enumerate(dict.fromkeys(items))}


def training_prompts(
    histories: list[np.ndarray], prompts: P5PromptBuilder, config: P5Config, generator: np.random.Generator
) -> Iterator[tuple[P5Prompt, int]]:
    """Yield prompts and the number of the item that answers each.

    Each user with at least two items gets a sequential prompt for every item but the first (or for some drawn ones), of
    which half name the user, and a direct prompt for one item of the history unless the user chose every item.
    """
    items = prompts.items.count
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    chosen = np.unique(owners * items + np.concatenate(histories))
    users = [user for user, history in enumerate(histories) if len(history) > 1]
    everything = chose_everything(len(histories), items, chosen)
    direct_users = np.array([user for user in users if not everything[user]], np.int64)
    drawn = sample_negatives(np.repeat(direct_users, config.negatives), items, chosen, generator)
    negatives = dict(zip(direct_users.tolist(), drawn.reshape(-1, config.negatives), strict=True))
    for user in users:
        history = histories[user]
        for end in next_item_positions(len(history), config.prefixes, generator):
            named = user if generator.random() < 0.5 else None
            yield prompts.next_item(history[max(0, end - config.max_history) : end], named), int(history[end])
        if user in negatives:
            target = generator.choice(history)
            yield prompts.direct(generator.permutation(np.append(negatives[user], target)), user), int(target)
