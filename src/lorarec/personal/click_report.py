"""The report that `personalize` writes into its folder."""

from lorarec.data import LABEL
from lorarec.evaluation import (
    METRICS,
    REPORT,
    ClickEvaluation,
    click_markdown,
    describe_options,
    evaluate_clicks,
    versions_line,
)
from lorarec.io import JsonObject, write_json, write_text
from lorarec.personal.few2many import DRAWN, RECLORA, WEIGHTS, Personalized


def report_clicks(result: Personalized) -> ClickEvaluation:
    """Evaluate the predictions of `personalize`, and write metrics.json and report.md beside them."""
    evaluation = evaluate_clicks(result.predictions[LABEL].to_numpy(), result.rows, RECLORA)
    write_json(result.folder / METRICS, evaluation.as_dict() | {"test": result.record["test"]})
    write_text(result.folder / REPORT, _markdown(evaluation, result.record))
    return evaluation


def describe_test_events(record: JsonObject) -> str:
    """Return sentences about the test events of users and items that training knows little about."""
    test = record["test"]
    return (
        f"Of {test['events']:,} test events, {test['unseen_users']:,} are of users and {test['unseen_items']:,} of "
        f"items without training events, {test['without_history']:,} of users without any history. For "
        f"{test['fell_back']:,} RecLoRA fell back to the router's mean weights: their user has no history, or training "
        "saw neither their item nor its genres nor its year."
    )


def _markdown(evaluation: ClickEvaluation, record: JsonObject) -> str:
    (dataset,) = record["datasets"]
    other, own = record["blend"]["weights"]
    facts = [
        f"- dataset: {dataset['name']} ({dataset['fingerprint']}), labelled and divided as {dataset['split']}",
        f"- backbone: {record['backbone']['id']} ({record['backbone']['fingerprint']})",
        f"- training events of the language model: {record['sample']:,}; click-through model: {record['crm']}",
        f"- last row: weighted mean of log-odds, recommender {other:.2f} and RecLoRA {own:.2f}, the weights with the "
        f"lowest log loss on {record['blend']['events']:,} validation events",
        f"- options: {describe_options(record['options'])}",
        versions_line(record["versions"]),
    ]
    picture = [
        "",
        f"![Users by the weights that the router gives them, and mean weights by layer]({WEIGHTS})",
        "",
        "Left: each point is a user, placed by the two main directions in which users' weights differ (all layers) and "
        f"coloured by the share of clicks among the user's ratings; at most {DRAWN:,} users, drawn at random. Right: "
        "mean weight of each meta-LoRA in each layer.",
    ]
    return click_markdown(evaluation, f"Clicks of {dataset['name']}", facts, describe_test_events(record), picture)
