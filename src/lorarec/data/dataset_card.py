"""The dataset card, `README.md` with the YAML header that the Hugging Face hub reads."""

import re

import huggingface_hub

from lorarec.io import JsonObject

CARD_FILE = "README.md"
#: Identifiers of licences that the hub knows; other terms are named by their text.
LICENCES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odbl")
#: Upper bounds of the numbers of rows that the hub's categories of size have.
SIZES = ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"))
TABLES = ("interactions", "items", "users")


def dataset_card(info: JsonObject, has_users: bool, repo_id: str) -> str:
    """Return the card of a dataset; each of its tables is a configuration that `datasets.load_dataset` reads.

    Args:
        info: Contents of `dataset.json`.
        has_users: Whether there is a table of users.
        repo_id: Hub id of the repository.
    """
    licence = str(info.get("licence") or "")
    known = re.sub(r"\s+", "-", licence.strip().lower())
    tables = TABLES if has_users else TABLES[:2]
    counts = info["counts"]
    data = huggingface_hub.DatasetCardData(
        pretty_name=str(info["name"]),
        tags=["lorarec", "recommendation"],
        task_categories=["text-ranking"],
        size_categories=[_size(counts["interactions"])],
        configs=[{"config_name": table, "data_files": f"{table}.parquet"} for table in tables],
        license=known if known in LICENCES else "other" if known else None,
        license_name=_slug(licence) if known and known not in LICENCES else None,
    )
    filters = "".join(f"- {each}\n" for each in info.get("filters") or ())
    return f"""---
{data.to_yaml()}
---

# {info["name"]}

Interactions of users with items, and the titles of the items, as a dataset of
[lorarec](https://github.com/lorarec/lorarec):

```python
from lorarec import Dataset

dataset = Dataset.load("hub:{repo_id}")
```

| users | items | interactions | fingerprint |
|---|---|---|---|
| {counts["users"]:,} | {counts["items"]:,} | {counts["interactions"]:,} | {info["fingerprint"]} |
""" + "".join(
        f"\n{name}: {text}\n"
        for name, text in (("Terms of use", licence), ("Filters", f"\n\n{filters}"))
        if text.strip()
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "terms-of-use"


def _size(rows: int) -> str:
    lower = "n"
    for bound, name in SIZES:
        if rows < bound:
            return f"n<{name}" if lower == "n" else f"{lower}<n<{name}"
        lower = name
    return f"n>{lower}"
