"""The evaluation of a user router over finished adapters, and the preference of users for one of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy import stats

from lorarec.backbone import Backbone
from lorarec.data import USER, Dataset, Split, read_parquet
from lorarec.evaluation import (
    Cell,
    Evaluation,
    MetricResult,
    NumberCell,
    ReportTable,
    evaluate,
    sample_users,
    style_axes,
    write_report,
)
from lorarec.io import JsonObject, save_figure, write_json
from lorarec.lora import MixingPrompts
from lorarec.metrics import bootstrap_interval, ndcg
from lorarec.personal.model import PersonalLora
from lorarec.personal.personal_source import PERSONAL
from lorarec.personal.scoring import user_scores
from lorarec.personal.user_adapters import USERS, user_mixtures
from lorarec.personal.user_features import EVENTS
from lorarec.personal.user_router_training import CONSTANT, WEIGHTS
from lorarec.ranking import adapter_scorers
from lorarec.recommenders import Scorer

PREFERENCE, PICTURE = "adapter_preference.json", "adapter_preference.png"
MIXTURE, OWN = "constant mixture", "own mixture"
TERCILES = ("short", "middle", "long")


class UserMixtureScorer:
    """Score every user's candidates under the user's own mixture of adapters.

    Users of one batch are scored side by side.

    Args:
        backbone: Backbone of the adapters.
        dataset: Dataset that the titles come from.
        split: Split whose training part is the evidence, if the adapters read it.
        folder: Folder of the user router; a user that it does not know gets the router's mean mixture.
        progress: Show a bar while scoring.
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
        """Return the scores of the candidates of every case."""
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
) -> tuple[Evaluation, JsonObject]:
    """Evaluate each adapter, the constant mixture and users' own mixtures, and compare users' weights with histories.

    Writes metrics.json, report.md, ndcg.png, adapter_preference.json and adapter_preference.png into the folder.

    Args:
        folder: Folder of the user router.
        adapters: PEFT folder of each adapter by the name of its row, in the order in which they were mixed.
        setting: Test setting whose cases are ranked.
        limit: Number of users that are evaluated, drawn by the seed; by default all.

    Returns:
        The evaluation, and the preference for the first adapter as `adapter_preference` returns it.

    Raises:
        LorarecError: The setting is unknown or has no cases.
    """
    folder = Path(folder)
    scorers: dict[str, Scorer] = {
        **adapter_scorers(backbone, dataset, split, {**adapters, MIXTURE: folder / CONSTANT}, progress=progress),
        OWN: UserMixtureScorer(backbone, dataset, split, folder, progress),
    }
    evaluation = evaluate(
        dataset, scorers, split=split, settings=[setting], compare_with=OWN, limit=limit, seed=seed, progress=progress
    )
    result = evaluation.settings[setting]
    hits = {name: ndcg(result.rows[name].ranks, 1) for name in (*adapters, MIXTURE, OWN)}
    tested = sample_users(split.test[setting], limit, seed).select(USER)
    users = tested.join(read_parquet(folder / USERS), on=USER, how="left", maintain_order="left")
    preference = adapter_preference(users[USER], users[EVENTS].to_numpy(), users[WEIGHTS].to_numpy()[:, 0], hits)
    preference = {"setting": setting, "adapter": next(iter(adapters)), **preference}
    write_report(evaluation, folder, preference_section(preference))
    write_json(folder / PREFERENCE, preference)
    plot_preference(folder / PICTURE, users.unique(USER), preference)
    return evaluation, preference


def adapter_preference(
    users: pl.Series, lengths: np.ndarray, weights: np.ndarray, hits: Mapping[str, np.ndarray]
) -> JsonObject:
    """Return weight and quality by tercile of history length; a user's cases share length and weight.

    Args:
        users: User ids, (cases,).
        lengths: Number of events in the training history, (cases,).
        weights: Weight of the adapter, (cases,).
        hits: NDCG@1 of the cases by name of the row, each (cases,).

    Returns:
        `users`: the number of users. `spearman`: `rho` and `p` of the users' lengths and weights, or None if all
        weights or all lengths are alike. `terciles`: of each that is not empty, its name, the lengths `from` and `to`,
        the number of users, the mean weight, and for each row the mean of NDCG@1 with the ends of its bootstrap
        interval. Users with histories of one length are in one tercile.
    """
    first = np.unique(users.to_numpy(), return_index=True)[1]
    length, weight = lengths[first], weights[first]
    cuts = np.quantile(length, [1 / 3, 2 / 3])
    case_terciles, user_terciles = np.searchsorted(cuts, lengths), np.searchsorted(cuts, length)
    terciles = []
    for number in np.unique(user_terciles):
        values = np.stack([each[case_terciles == number] for each in hits.values()], axis=1)
        low, high = bootstrap_interval(values)
        ends = zip(hits, values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        members = user_terciles == number
        terciles.append(
            {
                "name": TERCILES[number],
                "from": int(length[members].min()),
                "to": int(length[members].max()),
                "users": int(members.sum()),
                "weight": float(weight[members].mean()),
                "ndcg@1": {name: {"mean": mean, "low": below, "high": above} for name, mean, below, above in ends},
            }
        )
    alike = np.ptp(weight) < 1e-6 or np.ptp(length) == 0
    test = None if alike else stats.spearmanr(length, weight)
    spearman = None if test is None else {"rho": float(test.statistic), "p": float(test.pvalue)}
    return {"users": len(first), "spearman": spearman, "terciles": terciles}


def describe_preference(preference: JsonObject) -> str:
    """Return a line that says whether users with short histories have a larger weight of the adapter."""
    test, adapter = preference["spearman"], preference["adapter"]
    if test is None:
        return f"All users have the same weight of {adapter}, or histories of one length."
    direction = "less" if test["rho"] > 0 else "more"
    finding = f"the shorter a history, the {direction} of {adapter}" if test["p"] < 0.05 else "no clear dependence"
    return (
        f"Weight of {adapter} against history length over {preference['users']:,} users: Spearman's rho "
        f"{test['rho']:.2f}, p {test['p']:.2g} ({finding})."
    )


def preference_section(preference: JsonObject) -> list[str]:
    """Return the lines of the report's section about users' weights."""
    names = list(preference["terciles"][0]["ndcg@1"])
    rows: list[list[Cell]] = []
    for tercile in preference["terciles"]:
        metrics = [MetricResult(**tercile["ndcg@1"][name], p=None) for name in names]
        rows.append(
            [
                f"{tercile['name']}, {tercile['from']} to {tercile['to']} events",
                f"{tercile['users']:,}",
                f"{tercile['weight']:.3f}",
                *map(NumberCell.of, metrics),
            ]
        )
    columns = ["history", "users", f"weight of {preference['adapter']}", *(f"NDCG@1, {name}" for name in names)]
    return [
        "",
        "## Which users prefer which adapter",
        "",
        describe_preference(preference),
        "",
        f"![Weight and history length]({PICTURE})",
        "",
        *ReportTable(columns, rows).markdown(),
        "",
        "Terciles of the users by events in their training history; weights are means over layers.",
    ]


def plot_preference(path: Path, users: pl.DataFrame, preference: JsonObject) -> None:
    """Write a PNG: a point for each user, weight against history length, and the mean of each tercile."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    lengths = 1 + users[EVENTS].to_numpy()  # a history may be empty, and the axis is logarithmic
    axes.scatter(lengths, users[WEIGHTS].to_numpy()[:, 0], s=10, color="#a9c4de", linewidths=0)
    for tercile in preference["terciles"]:
        ends = [1 + tercile["from"], 1 + tercile["to"]]
        axes.plot(ends, [tercile["weight"]] * 2, color="#3b6ea5", linewidth=2, marker="|")
    axes.set(xscale="log", xlabel="events in the training history, plus one", ylim=(-0.02, 1.02))
    axes.set(ylabel=f"weight of {preference['adapter']}", title="Points: users. Lines: means of terciles.")
    style_axes(axes)
    save_figure(figure, path)
