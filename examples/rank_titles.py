"""Rank titles for a history, first with the backbone alone and then with an adapter trained in half a minute.

Run it with `python examples/rank_titles.py`.
"""

from lorarec import Backbone, Ranker, TrainingConfig, load_sample, train

SAMPLES = 256  # training cases

HISTORY = ["Toy Story (1995)", "Antz (1998)"]
CANDIDATES = ["A Bug's Life (1998)", "Heat (1995)", "Die Hard (1988)", "Monsters, Inc. (2001)"]

backbone = Backbone.from_pretrained("embedded")
config = TrainingConfig(samples=SAMPLES, epochs=1, batch_size=8, learning_rate=1e-3, eval_users=0)
adapter = train(backbone, [load_sample("comedy")], "example-output/comedy", config, overwrite=True)

for name, weights in (("the backbone alone", None), ("with the adapter", adapter)):
    with Ranker(backbone, weights) as ranker:
        print(name)
        for ranked in ranker.rank(HISTORY, CANDIDATES):
            print(f"  {ranked.score:7.2f}  {ranked.title}")
