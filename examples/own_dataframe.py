"""Recommend from a data frame of your own: pip install lorarec pandas, then python own_dataframe.py."""

from lorarec import Backbone, Dataset, Ranker, TrainingConfig, load_sample, recommend, train

SAMPLES = 256  # training cases
# Data frames of pandas with the bundled film ratings: put your own, with the names of their columns, in their place.
log, items = load_sample("action").to_pandas()
shop = Dataset.from_pandas(log, items, user="user_id", item="item_id", time="timestamp", title="title")
backbone = Backbone.from_pretrained("embedded")
config = TrainingConfig(samples=SAMPLES, epochs=1, batch_size=8, learning_rate=1e-3, eval_users=0)
adapter = train(backbone, [shop], "example-output/first", config, overwrite=True)
with Ranker(backbone, adapter) as ranker:
    for item in recommend(ranker, shop, log["user_id"][0], top_k=5):
        print(item.title)
