"""Training of the embedded backbone: its tasks, its initial weights, and resuming."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json
from lorarec.prompts import PromptBuilder
from lorarec.scoring import pack
from lorarec.scoring.tree import masked_by
from tests.factories import dataset_of
from tools.embedded_backbone import build as build_module
from tools.embedded_backbone import loss as loss_module
from tools.embedded_backbone.architecture import new_model
from tools.embedded_backbone.build import BuildConfig, build_backbone
from tools.embedded_backbone.curriculum import STAGES
from tools.embedded_backbone.episodes import Catalogue, copy_batch, related_batch, repeat_batch
from tools.embedded_backbone.relations import NEIGHBOURS, relate
from tools.embedded_backbone.vocabulary import train_vocabulary

KINDS = ["lamp", "chair", "table", "brush", "game", "puzzle", "novel", "guide", "camera", "guitar"]
MAKERS = ["acme", "borealis", "cobalt", "delta", "everest", "fjord"]
TITLES = [f"{maker} {kind} model {number}" for maker in MAKERS for kind in KINDS for number in (1, 2)]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    relations = relate(TITLES, None, tmp_path_factory.mktemp("relations") / "relations.npz")
    return Catalogue(TITLES, relations, [np.arange(start, start + 8) for start in range(0, 96, 8)])


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    question = "Would the user choose this next? Answer yes or no."
    return PromptBuilder(train_vocabulary([*TITLES, question], [question.lower()] * 50, 600), max_title_tokens=20)


def test_neighbours_share_words_and_are_never_the_title_itself(catalogue: Catalogue) -> None:
    (table,) = catalogue.relations.neighbours
    assert table.shape == (len(TITLES), NEIGHBOURS)
    for row, near in enumerate(table):
        assert row not in near
        assert all(set(TITLES[row].split()[:2]) & set(TITLES[other].split()[:2]) for other in near[near >= 0][:3])


def test_the_right_candidate_of_an_episode(catalogue: Catalogue, builder: PromptBuilder) -> None:
    rng = np.random.default_rng(0)
    easy = repeat_batch(rng, [catalogue], builder, 8, progress=0.0)
    for example, target in zip(easy.examples, easy.targets, strict=True):
        title = str(builder.tokenizer.decode(example.branches[int(target.argmax())])).strip()
        assert title in str(builder.tokenizer.decode(example.prompt))
    related = related_batch(rng, [catalogue], builder, 8, progress=0.5)
    for example, target in zip(related.examples, related.targets, strict=True):
        assert len(target) == len(example.branches)
        assert target.sum() == pytest.approx(1)


def test_similarity_prefers_titles_that_share_more_words(catalogue: Catalogue) -> None:
    def number(title: str) -> int:
        return TITLES.index(title)

    listed = np.array([number("acme lamp model 1"), number("acme game model 1")])
    titles = np.array([number("acme lamp model 2"), number("acme novel model 1"), number("fjord camera model 2")])
    both, maker, neither = catalogue.relations.similarity(titles, listed)
    assert both > maker > neither


def test_copied_lists_are_permutations(catalogue: Catalogue, builder: PromptBuilder) -> None:
    batch = copy_batch(np.random.default_rng(0), [catalogue], builder, 4)
    for row, start in zip(batch.rows, batch.starts, strict=True):
        assert sorted(row[:start]) == sorted(row[start:])


def test_the_start_looks_for_repeats() -> None:
    """Before any training a candidate's token attends to its copy in the list, or else to the prompt's first token."""
    words = [maker[:3] + kind for maker in MAKERS for kind in KINDS]
    question = "would the user choose this next? answer yes or no."
    builder = PromptBuilder(train_vocabulary([*words * 50, *[question] * 50], [], 1000))
    model = new_model(builder.tokenizer, None, seed=0).eval()
    model.set_attn_implementation("eager")
    example = builder.example([words[3], words[20], words[40]], [words[20], words[50]])
    batch = pack([example])
    with torch.no_grad(), masked_by(batch.tree):
        layers = model.model(
            input_ids=batch.input_ids,
            attention_mask=torch.ones_like(batch.input_ids),
            position_ids=batch.tree.position_ids,
            output_attentions=True,
        ).attentions
    compared = layers[1][0, :2].mean(0)
    repeated, strange = len(example.prompt), len(example.prompt) + len(example.branches[0])
    place = example.prompt.index(example.branches[0][0])
    assert compared[repeated, place] > 0.5
    assert compared[strange, 0] > 0.5


def test_shares_of_tasks_are_distributions() -> None:
    assert all(sum(shares) == pytest.approx(1) for _, shares in STAGES)


@pytest.fixture
def dataset() -> Dataset:
    rows = [(f"u{user}", str((user * 7 + k) % len(TITLES)), k) for user in range(20) for k in range(8)]
    return dataset_of(rows, {str(item): title for item, title in enumerate(TITLES)})


def test_an_interrupted_build_ends_as_an_uninterrupted_one(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = BuildConfig(steps=4, vocabulary=400, snapshots=1)
    monkeypatch.setattr(build_module, "CHECKPOINT_EVERY", 2)
    whole = build_backbone([dataset], tmp_path / "whole", options=options)
    draw = build_module.draw

    def interrupted(seed: int, step: int, *rest: object) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return draw(seed, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build_module, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_backbone([dataset], tmp_path / "resumed", options=options)
    assert not (tmp_path / "resumed").exists()
    monkeypatch.setattr(build_module, "draw", draw)
    resumed = build_backbone([dataset], tmp_path / "resumed", options=options)
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert len((tmp_path / "resumed.work" / "log.jsonl").read_text().splitlines()) == 4


def test_the_gradient_does_not_depend_on_the_passes(
    catalogue: Catalogue, builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(builder.tokenizer, None, seed=0)
    rng = np.random.default_rng(0)
    for batch in (related_batch(rng, [catalogue], builder, 6, 0.5), copy_batch(rng, [catalogue], builder, 6)):
        found = []
        for tokens in (1, 300, 10**6):
            monkeypatch.setattr(loss_module, "PASS", tokens)
            model.zero_grad()
            loss = loss_module.add_gradient(model, batch)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            found.append((loss.total.item() / loss.count, torch.cat([g.flatten() for g in gradients]), loss))
        for mean, gradient, loss in found[:-1]:
            assert mean == pytest.approx(found[-1][0], rel=1e-4)
            assert torch.allclose(gradient, found[-1][1], atol=1e-4 * found[-1][1].abs().max().item())
            assert (loss.hits, loss.tokens) == (found[-1][2].hits, found[-1][2].tokens)


def test_a_finished_build_goes_on_with_more_steps(dataset: Dataset, tmp_path: Path) -> None:
    options = BuildConfig(steps=2, vocabulary=400, snapshots=1)
    out = build_backbone([dataset], tmp_path / "model", options=options)
    first = (out / "model.safetensors").read_bytes()
    shutil.rmtree(out)
    build_backbone([dataset], out, options=replace(options, steps=3))
    assert read_json(out / "build.json")["steps"] == [2, 3]
    assert (out / "model.safetensors").read_bytes() != first
    shutil.rmtree(out)
    for other in (replace(options, steps=2), replace(options, steps=4, seed=1)):
        with pytest.raises(LorarecError, match="another build"):
            build_backbone([dataset], out, options=other)


def test_bad_input(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(LorarecError, match="exists already"):
        build_backbone([dataset], tmp_path / "there")
    with pytest.raises(LorarecError, match="cannot be loaded"):
        build_backbone([dataset], tmp_path / "new", encoder=tmp_path / "none", options=BuildConfig(vocabulary=400))
    with pytest.raises(LorarecError, match="another build"):
        build_backbone([dataset], tmp_path / "new", options=BuildConfig(vocabulary=500))
