"""The example of CONTRIBUTING.md: a new system is a function and a line."""

from pathlib import Path

from lorarec.data import Dataset, load_split
from lorarec.evaluation import evaluate
from lorarec.recommenders import TrainingData

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_example_of_a_system_is_fitted_and_evaluated(dataset_folder: Path) -> None:
    code = GUIDE.read_text().partition("```python\n")[2].partition("```")[0]
    named: dict[str, dict] = {"SYSTEMS": {}}
    exec(code, named)
    dataset = Dataset.load(dataset_folder)
    split = load_split(dataset)
    row = named["SYSTEMS"]["co-chosen"](TrainingData(dataset, split), damping=2.0)
    found = evaluate(dataset, {"co-chosen": row}, split=split, settings=["warm"]).settings["warm"].rows
    assert found["co-chosen"].metrics["ndcg@3"].mean > 2 * found["random"].metrics["ndcg@3"].mean
