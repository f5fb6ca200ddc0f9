"""RecLoRA: adapters that a router mixes for every user, the histories that go with them, and how both are trained."""

from lorarec.personal.chooser import Chosen, choose_by_user
from lorarec.personal.embeddings import title_embeddings
from lorarec.personal.few2many import Personalized, personalize
from lorarec.personal.meta_loras import TARGETS, meta_loras
from lorarec.personal.model import PersonalLora
from lorarec.personal.options import PersonalizeOptions
from lorarec.personal.pasts import Past
from lorarec.personal.router import Router
from lorarec.personal.tune_chooser import ChooseOptions
from lorarec.personal.two_towers import TwoTowers, fit_two_towers
from lorarec.personal.user_chooser import UserChooser
from lorarec.personal.users import export_user

__all__ = [
    "TARGETS",
    "ChooseOptions",
    "Chosen",
    "Past",
    "PersonalLora",
    "PersonalizeOptions",
    "Personalized",
    "Router",
    "TwoTowers",
    "UserChooser",
    "choose_by_user",
    "export_user",
    "fit_two_towers",
    "meta_loras",
    "personalize",
    "title_embeddings",
]
