"""RecLoRA's tables (arXiv 2408.03533) from a recipe: every row on the same cut by global time and the same events."""

from lorarec.experiments.click_tables.recipe import ClicksRecipe, read_clicks
from lorarec.experiments.click_tables.run import run_clicks

__all__ = ["ClicksRecipe", "read_clicks", "run_clicks"]
