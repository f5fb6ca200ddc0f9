"""RecLoRA: adapters that a router mixes for every user, the histories that go with them, and how both are trained."""

from typing import TYPE_CHECKING

from lorarec.lazy import lazy_attributes

if TYPE_CHECKING:
    from lorarec.personal.chooser import Chosen, choose_by_user
    from lorarec.personal.embeddings import title_embeddings
    from lorarec.personal.few2many import Personalized, personalize
    from lorarec.personal.meta_bank import meta_loras
    from lorarec.personal.model import PersonalLora
    from lorarec.personal.options import TARGETS, ChooseOptions, PersonalizeOptions
    from lorarec.personal.pasts import Past
    from lorarec.personal.router import Router
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

_HOMES = {
    "Chosen": "lorarec.personal.chooser",
    "choose_by_user": "lorarec.personal.chooser",
    "title_embeddings": "lorarec.personal.embeddings",
    "Personalized": "lorarec.personal.few2many",
    "personalize": "lorarec.personal.few2many",
    "TARGETS": "lorarec.personal.options",
    "meta_loras": "lorarec.personal.meta_bank",
    "PersonalLora": "lorarec.personal.model",
    "PersonalizeOptions": "lorarec.personal.options",
    "Past": "lorarec.personal.pasts",
    "Router": "lorarec.personal.router",
    "ChooseOptions": "lorarec.personal.options",
    "TwoTowers": "lorarec.personal.two_towers",
    "fit_two_towers": "lorarec.personal.two_towers",
    "UserChooser": "lorarec.personal.user_chooser",
    "export_user": "lorarec.personal.users",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_attributes(__name__, _HOMES)
