"""P5's own mechanism: ids as tokens, prompts, and one pass of the encoder for all candidates of a case."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.errors import LorarecError
from lorarec.recommenders import P5, P5Config, TrainingData
from lorarec.recommenders.dot_product import UNKNOWN_ITEM_SCORE
from lorarec.recommenders.p5_prompts import DIRECT, NEXT, NEXT_OF_USER, IdTokens, P5PromptBuilder
from lorarec.recommenders.p5_recommender import P5Model, P5Scorer, number_items, training_prompts

CONFIG = P5Config(hidden_size=16, num_layers=1, negatives=4)


@given(count=st.integers(1, 5000), first=st.integers(0, 50), data=st.data())
def test_ids_come_back_from_their_tokens(count: int, first: int, data: st.DataObject) -> None:
    ids = IdTokens(count, first)
    numbers = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1)))
    tokens = ids.tokens(numbers)
    assert tokens.shape == (len(numbers), 2)
    assert tokens.min() >= first
    assert tokens.max() < ids.end
    np.testing.assert_array_equal(ids.numbers(tokens), numbers)


def test_prompts_contain_the_question() -> None:
    prompts = P5PromptBuilder(10, 5)
    history = np.array([3, 9, 3])
    for user, task, front in ((None, NEXT, 1), (4, NEXT_OF_USER, 3)):
        prompt = prompts.next_item(history, user)
        assert prompt.tokens[0] == task
        items = prompt.tokens[front:].reshape(-1, 2)
        np.testing.assert_array_equal(prompts.items.numbers(items), history)
        assert prompt.words[front:].tolist() == [2, 2, 3, 3, 4, 4]
    assert prompts.users.numbers(prompt.tokens[1:3]) == 4
    assert prompt.words[:3].tolist() == [0, 1, 1]
    assert prompt.tokens.max() < prompts.vocabulary_size
    assert prompts.direct(history, 0).tokens[0] == DIRECT


def test_items_are_numbered_as_histories_name_them(circles: TrainingData) -> None:
    number = number_items(circles)
    assert number.keys() == set(circles.train_items)
    first = circles.split.train[HISTORY][0].to_list()
    assert [number[item] for item in first] == list(range(len(first)))


def test_tasks_ask_for_an_item_of_the_user_that_is_not_in_the_prompt(circles: TrainingData) -> None:
    number = number_items(circles)
    histories = [np.array([number[item] for item in items]) for items in circles.split.train[HISTORY].to_list()]
    prompts = P5PromptBuilder(len(number), len(histories))
    found = list(training_prompts(histories, prompts, CONFIG, np.random.default_rng(0)))
    assert len(found) == sum(map(len, histories))
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    named = 0
    for owner, (prompt, answer) in zip(owners, found, strict=True):
        history = histories[owner].tolist()
        named += prompt.tokens[0] == NEXT_OF_USER
        items = prompts.items.numbers(prompt.tokens[1 if prompt.tokens[0] == NEXT else 3 :].reshape(-1, 2)).tolist()
        if prompt.tokens[0] == DIRECT:
            assert [item for item in items if item in history] == [answer]
            assert len(items) == CONFIG.negatives + 1
        else:
            assert items == history[: history.index(answer)]
    assert 0.4 < named / (len(found) - len(histories)) < 0.6


@pytest.fixture
def scorer(circles: TrainingData) -> P5Scorer:
    """An untrained scorer."""
    prompts = P5PromptBuilder(len(circles.train_items), len(circles.users))
    torch.manual_seed(0)
    return P5Scorer(circles, P5Model(prompts.vocabulary_size, CONFIG), prompts, CONFIG)


@torch.no_grad()
def test_one_pass_of_the_encoder_gives_what_a_pass_for_each_candidate_does(
    circles: TrainingData, scorer: P5Scorer
) -> None:
    cases = circles.split.test["warm"].head(3).select(USER, HISTORY, CANDIDATES)
    together = scorer.score(cases)
    t5 = scorer.model.eval().t5
    for row, scores in zip(cases.iter_rows(named=True), together, strict=True):
        history = np.array([scorer.item_numbers[item] for item in row[HISTORY]])
        prompt = scorer.prompts.next_item(history, scorer.user_numbers[row[USER]])
        embeddings = t5.shared(torch.tensor(prompt.tokens)) + scorer.model.words(torch.tensor(prompt.words))
        for candidate, score in zip(row[CANDIDATES], scores, strict=True):
            answer = scorer.prompts.items.tokens(np.array([scorer.item_numbers[candidate]]))
            # The mean over the two tokens, which T5's own loss is.
            loss = t5(inputs_embeds=embeddings[None], labels=torch.from_numpy(answer)).loss
            assert score == pytest.approx(-2 * loss.item(), abs=1e-5)


def test_the_likelihoods_of_all_answers_add_up_to_one_at_most(circles: TrainingData, scorer: P5Scorer) -> None:
    case = circles.split.test["warm"].head(1).select(USER, HISTORY)
    (scores,) = scorer.score(case.with_columns(pl.Series(CANDIDATES, [circles.train_items])))
    assert 0 < np.exp(scores.astype(float)).sum() <= 1 + 1e-5


def test_the_order_of_items_and_the_user_are_read(circles: TrainingData, scorer: P5Scorer) -> None:
    case = circles.split.test["warm"].head(1).select(USER, HISTORY, CANDIDATES)
    (known,) = scorer.score(case)
    for changed in (
        case.with_columns(pl.col(HISTORY).list.reverse()),
        case.with_columns(pl.lit("nobody").alias(USER)),
        case.with_columns(pl.Series(HISTORY, [["gone"]])),
    ):
        (other,) = scorer.score(changed)
        assert not np.allclose(known, other, atol=1e-4)


def test_new_items_come_last(with_new_items: TrainingData) -> None:
    recommender = P5(P5Config(epochs=0, hidden_size=16, num_layers=1)).fit(with_new_items)
    cases = with_new_items.split.test["new-item"].head(5)
    for scores, target, candidates in zip(recommender.score(cases), cases["target"], cases[CANDIDATES], strict=True):
        place = candidates.to_list().index(target)
        assert scores[place] == UNKNOWN_ITEM_SCORE
        assert np.isfinite(scores).all()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(LorarecError, match="option max_history must be at least 1"):
        P5Config(max_history=0)
    with pytest.raises(LorarecError, match="option learning_rate must be"):
        P5Config(learning_rate=0.0)
