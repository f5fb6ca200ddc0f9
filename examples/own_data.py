"""From two CSV files to an evaluated mixture: import, train, mix, evaluate.

Run it with `python examples/own_data.py`.

The files are made from the bundled film ratings. Put the names of your own files and columns in their place.
"""

import polars as pl

from lorarec import Backbone, Dataset, TrainingConfig, evaluate, mix, train
from lorarec.data import load_sample

SAMPLES = 256  # training cases of each adapter
USERS = 100  # test users of each setting

# Two tables, as a shop would have them.
films = load_sample("action")
films.interactions.rename({"user_id": "customer", "item_id": "sku", "timestamp": "at"}).write_csv("log.csv")
films.items.select(sku="item_id", name="title").write_csv("catalogue.csv")

log, catalogue = pl.read_csv("log.csv"), pl.read_csv("catalogue.csv")
shop = Dataset.from_polars(log, catalogue, user="customer", item="sku", time="at", title="name")
print(shop.info["counts"])

backbone = Backbone.from_pretrained("embedded")
options = TrainingConfig(samples=SAMPLES, epochs=1, batch_size=8, learning_rate=1e-3, eval_users=0)
general = train(backbone, [load_sample("comedy"), load_sample("drama")], "example-output/general", options)
specific = train(backbone, [shop], "example-output/shop", options)
mixed = mix(backbone, [general, specific], dataset=shop, method="entropy", out="example-output/mixed")
print("weights of general and specific:", mixed.weights)

report = evaluate(backbone, shop, {"general": general, "specific": specific, "mixed": mixed}, limit=USERS)
print(report)
