"""RecLoRA's tables (arXiv 2408.03533): all rows have the same global-time split and the same test events."""

from lorarec.experiments.click_tables.recipe import ClicksRecipe, read_clicks
from lorarec.experiments.click_tables.run import run_clicks

__all__ = ["ClicksRecipe", "read_clicks", "run_clicks"]
