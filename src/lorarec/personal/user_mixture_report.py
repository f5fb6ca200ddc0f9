"""The rows of a user chooser over finished adapters, and who leans on which of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure as Canvas
from scipy import stats

from lorarec.backbone import Backbone
from lorarec.data import USER, Dataset, Split, read_parquet
from lorarec.evaluation import Evaluation, adapter_scorers, evaluate, sampled_users, write_report
from lorarec.io import new_file, write_json
from lorarec.lora import MixingPrompts
from lorarec.metrics import bootstrap_interval, ndcg
from lorarec.personal.model import PersonalLora
from lorarec.personal.scoring import user_scores
from lorarec.personal.user_adapters import PERSONAL, USERS, user_mixtures
from lorarec.personal.user_features import EVENTS
from lorarec.personal.user_router_training import CONSTANT, WEIGHTS

PREFERENCE, PICTURE = "leaning.json", "leaning.png"
MIXTURE, OWN = "constant mixture", "own mixture"
TERCILES = ("short", "middle", "long")


class UserMixtureScorer:
    """A scorer that ranks every user's candidates under the user's own mixture, users of one batch side by side.

    Args:
        folder: what `choose_by_user` wrote; a user whom it does not know gets the router's mean mixture.
        split: its training part is the evidence, where the adapters read it.
        progress: show a bar while scoring.
    """

    def __init__(
        self, backbone: Backbone, dataset: Dataset, split: Split, folder: str | Path, progress: bool = False
    ) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.split = split
        self.folder = Path(folder)
        self.progress = progress
        self.prompts = MixingPrompts(backbone, [self.folder / CONSTANT])
        self.about = f"{self.folder}: the mixture that its router chooses for each user, {self.prompts.builder.readout}"

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        examples = self.prompts.examples(self.dataset, self.split, cases)
        with PersonalLora.load(self.folder / PERSONAL, self.backbone) as personal:
            weights = user_mixtures(personal, read_parquet(self.folder / USERS), cases[USER])
            own = lambda rows: weights[:, rows]  # noqa: E731
            return user_scores(personal, examples, own, self.prompts.builder, progress=self.progress)


def report_user_mixtures(
    backbone: Backbone,
    dataset: Dataset,
    split: Split,
    folder: str | Path,
    adapters: Mapping[str, str | Path],
    setting: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Evaluation, dict[str, Any]]:
    """Evaluate each adapter, the constant mixture and users' own mixtures on the same test cases, and say who leans on
    the first adapter.

    Writes metrics.json, report.md, ndcg.png, leaning.json and leaning.png into the folder.

    Args:
        folder: what `choose_by_user` wrote.
        adapters: row name -> PEFT folder, in the order in which they were mixed.
        setting: whose test cases.
        limit: evaluate so many users, drawn by the seed.

    Raises:
        LorarecError: the setting is unknown or has no cases.
    """
    folder = Path(folder)
    rows: dict[str, Any] = dict(
        adapter_scorers(backbone, dataset, split, {**adapters, MIXTURE: folder / CONSTANT}, progress=progress)
    )
    rows[OWN] = UserMixtureScorer(backbone, dataset, split, folder, progress)
    evaluation = evaluate(
        dataset, split, rows, settings=[setting], compare_with=OWN, limit=limit, seed=seed, progress=progress
    )
    result = evaluation.settings[setting]
    hits = {name: ndcg(result.rows[name].ranks, 1) for name in (*adapters, MIXTURE, OWN)}
    tested = sampled_users(split.test[setting], limit, seed).select(USER)
    told = tested.join(read_parquet(folder / USERS), on=USER, how="left", maintain_order="left")
    lean = adapter_preference(told[USER], told[EVENTS].to_numpy(), told[WEIGHTS].to_numpy()[:, 0], hits)
    lean = {"setting": setting, "adapter": next(iter(adapters)), **lean}
    write_report(evaluation, folder, preference_section(lean))
    write_json(folder / PREFERENCE, lean)
    plot_preference(folder / PICTURE, told.unique(USER), lean)
    return evaluation, lean


def adapter_preference(
    users: pl.Series, lengths: np.ndarray, weights: np.ndarray, figures: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Weight and quality by tercile of history length, all arguments by case; a user's cases share length and weight.

    Args:
        users: (cases,) user ids.
        lengths: (cases,) events of the training history.
        weights: (cases,) of the adapter in question.
        figures: row -> (cases,) NDCG@1.

    Returns:
        `spearman`: `rho` and `p` of the users' lengths and weights, None where all weights or lengths are alike;
        `terciles`: for each that is not empty its name, lengths `from` and `to`, number of users, mean weight, and
        for each row mean and ends of the bootstrap interval of NDCG@1. Users of one length are never parted.
    """
    first = np.unique(users.to_numpy(), return_index=True)[1]
    length, weight = lengths[first], weights[first]
    cuts = np.quantile(length, [1 / 3, 2 / 3])
    groups, group = np.searchsorted(cuts, lengths), np.searchsorted(cuts, length)
    terciles = []
    for number in np.unique(group):
        inside = np.stack([values[groups == number] for values in figures.values()], axis=1)
        low, high = bootstrap_interval(inside)
        ends = zip(figures, inside.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        terciles.append(
            {
                "name": TERCILES[number],
                "from": int(length[group == number].min()),
                "to": int(length[group == number].max()),
                "users": int((group == number).sum()),
                "weight": float(weight[group == number].mean()),
                "ndcg@1": {name: {"mean": mean, "low": below, "high": above} for name, mean, below, above in ends},
            }
        )
    alike = np.ptp(weight) < 1e-6 or np.ptp(length) == 0
    found = None if alike else stats.spearmanr(length, weight)
    spearman = None if found is None else {"rho": float(found.statistic), "p": float(found.pvalue)}
    return {"users": len(first), "spearman": spearman, "terciles": terciles}


def describe_preference(lean: Mapping[str, Any]) -> str:
    """One line: whether users with short histories lean on the adapter."""
    found = lean["spearman"]
    if found is None:
        return f"All users have the same weight of {lean['adapter']}, or histories of one length."
    side = "less" if found["rho"] > 0 else "more"
    sure = f"the shorter a history, the {side} of {lean['adapter']}" if found["p"] < 0.05 else "no clear dependence"
    return (
        f"Weight of {lean['adapter']} against history length over {lean['users']:,} users: Spearman's rho "
        f"{found['rho']:.2f}, p {found['p']:.2g} ({sure})."
    )


def preference_section(lean: Mapping[str, Any]) -> list[str]:
    """The report's section."""
    names = list(lean["terciles"][0]["ndcg@1"])
    head = ["history", "users", f"weight of {lean['adapter']}", *(f"NDCG@1, {name}" for name in names)]
    lines = [
        "",
        "## Who leans on what",
        "",
        describe_preference(lean),
        "",
        f"![Weight and history length]({PICTURE})",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for part in lean["terciles"]:
        cells = [
            f"{part['name']}, {part['from']} to {part['to']} events",
            f"{part['users']:,}",
            f"{part['weight']:.3f}",
        ]
        for name in names:
            cells.append("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**part["ndcg@1"][name]))
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "Terciles of the users by events in their training history; weights are means over layers."]


def plot_preference(path: Path, users: pl.DataFrame, lean: Mapping[str, Any]) -> None:
    """Write a PNG: a point per user, weight against history length, and the mean of each tercile."""
    canvas = Canvas(figsize=(6.5, 4), layout="constrained")
    panel = canvas.subplots()
    lengths = 1 + users[EVENTS].to_numpy()  # there may be none, and the axis is logarithmic
    panel.scatter(lengths, users[WEIGHTS].to_numpy()[:, 0], s=10, color="#a9c4de", linewidths=0)
    for part in lean["terciles"]:
        ends = [1 + part["from"], 1 + part["to"]]
        panel.plot(ends, [part["weight"]] * 2, color="#3b6ea5", linewidth=2, marker="|")
    panel.set(xscale="log", xlabel="events in the training history, plus one", ylim=(-0.02, 1.02))
    panel.set(ylabel=f"weight of {lean['adapter']}", title="Points: users. Lines: means of terciles.")
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    with new_file(path) as temporary:
        canvas.savefig(temporary, dpi=120, format="png")
