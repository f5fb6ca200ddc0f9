"""Import two CSV files, train two adapters, mix them, and evaluate the mixture.

Run it with `python examples/own_data.py`.

The files are made from the bundled film ratings. Put the names of your own files and columns in their place.
"""

import polars as pl

from lorarec import Backbone, Dataset, TrainingConfig, adapter_scorers, evaluate, load_sample, load_split, mix, train

SAMPLES = 256  # training cases of each adapter
USERS = 100  # test users of each setting

# Two tables, as a shop would have them.
films = load_sample("action")
films.interactions.select(customer="user_id", sku="item_id", at="timestamp").write_csv("log.csv")
films.items.select(sku="item_id", name="title").write_csv("catalogue.csv")

log, catalogue = pl.read_csv("log.csv"), pl.read_csv("catalogue.csv")
shop = Dataset.from_polars(log, catalogue, user="customer", item="sku", time="at", title="name")
print(shop.info["counts"])

backbone = Backbone.from_pretrained("embedded")
config = TrainingConfig(samples=SAMPLES, epochs=1, batch_size=8, learning_rate=1e-3, eval_users=0)
general = train(
    backbone, [load_sample("comedy"), load_sample("drama")], "example-output/general", config, overwrite=True
)
specific = train(backbone, [shop], "example-output/shop", config, overwrite=True)
mixed = mix(backbone, [general, specific], dataset=shop, method="entropy", out="example-output/mixed", overwrite=True)
print("weights of general and specific:", mixed.weights)

split = load_split(shop)
scorers = adapter_scorers(backbone, shop, split, {"general": general, "specific": specific, "mixed": mixed})
report = evaluate(shop, scorers, split=split, limit=USERS)
for setting, result in report.settings.items():
    print(setting)
    for name, row in result.rows.items():
        ndcg = row.metrics["ndcg@3"]
        print(f"  {name:12} NDCG@3 {ndcg.mean:.3f} [{ndcg.low:.3f}, {ndcg.high:.3f}]")
