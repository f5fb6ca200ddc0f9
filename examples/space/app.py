"""A Gradio app that recommends from a dataset with LoRA adapters; it runs here and as a Hugging Face Space.

Environment variables, or the variables of the Space, say what is loaded. Each may be a hub id or a folder:

- DATASET: `hub:OWNER/NAME` or a dataset folder; the bundled comedies if not given.
- ADAPTERS: adapters, separated by commas; none for the backbone alone.
- BACKBONE: the model that the adapters were trained on; `embedded` if not given.

Private repositories are read with HF_TOKEN, a secret of the Space. Run it here with `python examples/space/app.py`.
"""

import os
from functools import cache
from threading import Lock

import gradio as gr

from lorarec import Backbone, Dataset, Index, LorarecError, Ranker, load_sample
from lorarec.data import Evidence
from lorarec.ranking import recommend_next
from lorarec.recommenders import make_evidence

NO_ADAPTER = "none (the backbone alone)"
CHOICES = 5000  # the most frequent items, from which a visitor chooses a history
TOP_K = 10

source = os.environ.get("DATASET")
adapters = [name.strip() for name in os.environ.get("ADAPTERS", "").split(",") if name.strip()]
dataset = Dataset.load(source) if source else load_sample("comedy")
backbone = Backbone.from_pretrained(os.environ.get("BACKBONE", "embedded"))
index = Index.build(dataset)
one_at_a_time = Lock()  # an open ranker has its adapter merged into the weights of the backbone


def open_ranker(adapter: str) -> Ranker:
    """Open the ranker of a choice of the visitor."""
    return Ranker(backbone, None if adapter == NO_ADAPTER else adapter)


@cache
def evidence_for(adapter: str) -> Evidence | None:
    """Return the evidence that an adapter reads; it is made once."""
    with open_ranker(adapter) as ranker:
        return make_evidence(ranker.prompt, dataset)


def recommend(history: list[str] | None, adapter: str) -> list[list[str | float]]:
    """Return title, share of the posterior and reasons of the best items for a history of item ids."""
    try:
        with one_at_a_time:
            evidence = evidence_for(adapter)
            with open_ranker(adapter) as ranker:
                items = recommend_next(ranker, index, dataset.titles, history or [], TOP_K, evidence=evidence)
    except LorarecError as error:
        raise gr.Error(str(error)) from error
    return [[item.title, round(item.probability, 4), "; ".join(item.because)] for item in items]


def rank(history: str, candidates: str, adapter: str) -> list[list[str | float]]:
    """Return title and score of candidate titles, one a line, best first."""
    past, titles = ([line.strip() for line in text.splitlines() if line.strip()] for text in (history, candidates))
    try:
        with one_at_a_time, open_ranker(adapter) as ranker:
            return [[ranked.title, round(ranked.score, 4)] for ranked in ranker.rank(past, titles)]
    except LorarecError as error:
        raise gr.Error(str(error)) from error


def page() -> gr.Blocks:
    """Return the page: recommendations from the catalogue, and the ranking of any titles."""
    counts = dataset.interactions["item_id"].value_counts(sort=True)
    choices = [(dataset.titles[item], item) for item in counts["item_id"][:CHOICES]]
    with gr.Blocks(title=f"Recommendations: {dataset.name}") as blocks:
        gr.Markdown(f"# {dataset.name}\n{len(dataset.titles):,} items, ranked by {backbone.id} with a LoRA adapter.")
        adapter = gr.Dropdown([*adapters, NO_ADAPTER], value=[*adapters, NO_ADAPTER][0], label="Adapter")
        with gr.Tab("Recommend"):
            chosen = gr.Dropdown(choices, multiselect=True, label="What you have chosen, oldest first")
            found = gr.Dataframe(headers=["Title", "Probability", "Because of"], label="Recommended", wrap=True)
            gr.Button("Recommend", variant="primary").click(recommend, [chosen, adapter], found, api_name="recommend")
        with gr.Tab("Rank titles"):
            history = gr.Textbox(label="Titles of the history, one a line, oldest first", lines=4)
            candidates = gr.Textbox(label="Titles to rank, one a line", lines=6)
            ranked = gr.Dataframe(headers=["Title", "Score"], label="Ranking", wrap=True)
            gr.Button("Rank", variant="primary").click(rank, [history, candidates, adapter], ranked, api_name="rank")
    return blocks


if __name__ == "__main__":
    page().launch()
