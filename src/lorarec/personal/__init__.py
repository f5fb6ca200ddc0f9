"""RecLoRA: adapters that a router mixes for every user, and the histories that go with them."""

from lorarec.personal.embeddings import title_embeddings
from lorarec.personal.meta_loras import TARGETS, meta_loras
from lorarec.personal.model import PersonalLora
from lorarec.personal.retriever import Retriever
from lorarec.personal.router import Router

__all__ = ["TARGETS", "PersonalLora", "Retriever", "Router", "meta_loras", "title_embeddings"]
