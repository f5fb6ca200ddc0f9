"""The example of CONTRIBUTING.md: a new recommender is a class and a line of the registry."""

from pathlib import Path

from lorarec.data import Dataset, load_split
from lorarec.evaluation import evaluate
from lorarec.recommenders import Recommender, TrainingData

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_example_of_a_recommender_is_fitted_and_evaluated(dataset_folder: Path) -> None:
    code = GUIDE.read_text().partition("```python\n")[2].partition("```")[0]
    recommenders: dict[str, type[Recommender]] = {}
    exec(code, {"CONVENTIONAL": recommenders})
    dataset = Dataset.load(dataset_folder)
    split = load_split(dataset)
    row = recommenders["co-chosen"].from_options({"damping": 2.0}).fit(TrainingData(dataset, split))
    found = evaluate(dataset, {"co-chosen": row}, split=split, settings=["warm"]).settings["warm"].rows
    assert found["co-chosen"].metrics["ndcg@3"].mean > 2 * found["random"].metrics["ndcg@3"].mean
