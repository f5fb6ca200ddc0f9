"""Recommend from a whole catalogue: make an index, recommend to a user, and show the items behind each recommendation.

Run it with `python examples/whole_catalogue.py`.
"""

from lorarec import Backbone, Index, Ranker, TrainingConfig, explain, load_sample, recommend, train

SAMPLES = 256  # training cases

shop = load_sample("action")
backbone = Backbone.from_pretrained("embedded")
config = TrainingConfig(samples=SAMPLES, epochs=1, batch_size=8, learning_rate=1e-3, eval_users=0)
adapter = train(backbone, [shop], "example-output/shop", config, overwrite=True)

index = Index.build(shop)
user = shop.interactions["user_id"][0]
with Ranker(backbone, adapter) as ranker:
    items = recommend(ranker, shop, user, index=index, top_k=5)
    for item in items:
        print(f"{item.probability:.3f}  {item.title}  (found by {item.source})")
    print(f"\n{items[0].title} is based on:")
    for influence in explain(ranker, shop, user, items[0].item_id).influences:
        print(f"{influence.score:+.2f}  {influence.title}")
