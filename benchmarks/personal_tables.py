"""RecLoRA's tables (arXiv 2408.03533): every row on the same cut by global time and the same test events.

    python benchmarks/personal_tables.py DATASET --out DIR [--seeds 1 2 3] [--samples 4096] [--test-events 10000]
        [--rows 'din-*' 'size-*'] [--crm din] [--set epochs=3 lr=5e-4] [--list]

The main table, for each seed: conventional recommenders and CTR-BERT (two towers of texts), trained on all training
events; TALLRec (one LoRA, recent history), ReLLa (one LoRA, similar history) and RecLoRA, trained on a sample of them,
each alone and blended with the recommender. The analyses change one thing of RecLoRA with the first seed: number of
meta-LoRAs, lengths of both histories, size of the sample, and parts left out.

A finished row is DIR/rows/NAME.json and .parquet; a second start does what is missing, and a row that was stopped goes
on where it was. Several processes may fill one DIR: each row is done by one of them. Whatever is finished is summed up
in DIR/tables.json, tables.md, main.png and analyses.png (by personal_summary.py).
"""

import argparse
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from personal_rows import BLENDED, CTR_BERT, Row, Work, locked
from personal_summary import summarise

from lorarec.artefacts import read_json, write_json
from lorarec.backbone.load import EMBEDDED
from lorarec.conventional import MODELS
from lorarec.data import Dataset
from lorarec.personal import PersonalizeOptions

#: What a LoRA of the main table changes of RecLoRA's options.
LORAS: dict[str, dict[str, Any]] = {
    "reclora": {},
    "rella": {"size": 1},
    "tallrec": {"size": 1, "retrieval": "recent"},
}
#: Analysis -> (the option that it changes, its values).
VARIED = {
    "size": ("size", (1, 2, 4, 8, 16)),
    "id-history": ("id_history", (10, 20, 40, 60)),
    "text-history": ("max_history", (5, 10, 15, 20)),
}
SMALLEST_SAMPLE = 512


def main_rows(seeds: list[int]) -> list[Row]:
    rows = []
    for seed in seeds:
        rows += [Row(f"{name}-seed{seed}", name, seed) for name in (*MODELS, CTR_BERT)]
        rows += [Row(f"{name}-seed{seed}", "lora", seed, changed) for name, changed in LORAS.items()]
    return rows


def analyses(seed: int, default: PersonalizeOptions) -> dict[str, dict[str, Row]]:
    """Analysis -> point -> its row; RecLoRA's own row is a point of each, and one meta-LoRA is ReLLa.

    Args:
        default: options of RecLoRA's own row.
    """
    own = {name: Row(f"{name}-seed{seed}", "lora", seed, changed) for name, changed in LORAS.items()}
    sizes = tuple(SMALLEST_SAMPLE << step for step in range(20) if SMALLEST_SAMPLE << step < default.samples)
    found: dict[str, dict[str, Row]] = {}
    for analysis, (option, values) in (VARIED | {"samples": ("samples", sizes)}).items():
        found[analysis] = {}
        for value in sorted({*values, getattr(default, option)}):
            row = Row(f"{analysis}-{value}", "lora", seed, {option: value})
            row = own["reclora"] if value == getattr(default, option) else row
            found[analysis][str(value)] = own["rella"] if (option, value) == ("size", 1) else row
    found["left out"] = {
        "nothing": own["reclora"],
        "personal LoRA": own["rella"],
        "retriever": Row("no-retriever", "lora", seed, {"retrieval": "recent", "id_retrieval": "recent"}),
        "Few2Many": Row("no-few2many", "lora", seed, few=True),
    }
    return found


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse rows that are not comparable with those already there."""
    before = read_json(path) if path.exists() else settings
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        raise SystemExit(f"{path} was made with {changed[0]} {before.get(changed[0])}: choose another --out")
    write_json(path, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--samples", type=int, default=4096, help="training events of the language model")
    parser.add_argument("--test-events", type=int, help="a sample of the test events; all without it")
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns of names; see --list")
    parser.add_argument("--crm", default="din", choices=list(MODELS), help="what RecLoRA's router reads")
    parser.add_argument("--backbone", default=EMBEDDED)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options of personalize")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and whether they are there")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()
    given = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    options = {**given, "samples": arguments.samples, "test_events": arguments.test_events}
    studied = analyses(arguments.seeds[0], PersonalizeOptions.build(**options))
    every = {row.name: row for row in main_rows(arguments.seeds)}
    every |= {row.name: row for points in studied.values() for row in points.values()}
    chosen = [row for row in every.values() if any(fnmatch(row.name, pattern) for pattern in arguments.rows)]
    done: Callable[[Row], bool] = lambda row: (arguments.out / "rows" / f"{row.name}.json").exists()  # noqa: E731
    if arguments.list:
        print("\n".join(f"{row.name:20} {'finished' if done(row) else ''}" for row in chosen))
        return
    dataset = Dataset.load(arguments.dataset)
    (arguments.out / "rows").mkdir(parents=True, exist_ok=True)
    settings = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "backbone": arguments.backbone}
    settings |= {"crm": arguments.crm, "first_seed": arguments.seeds[0], "options": options}
    same_settings(arguments.out / "settings.json", settings)
    work = Work(dataset, arguments.out, arguments.backbone, arguments.crm, options, not arguments.quiet)
    for row in chosen:
        with locked(arguments.out / "locks" / row.name, wait=False) as mine:
            if mine and not done(row):
                work.finish(row)
    named = {analysis: {point: row.name for point, row in points.items()} for analysis, points in studied.items()}
    loras = [name + kind for name in reversed(LORAS) for kind in ("", BLENDED)]
    summarise(arguments.out, [*MODELS, CTR_BERT, *loras], arguments.crm, named)


if __name__ == "__main__":
    main()
