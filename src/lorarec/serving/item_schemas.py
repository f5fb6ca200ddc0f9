"""JSON schemas of requests that change the catalogue, and of their responses."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lorarec.serving.response_schemas import CatalogueItem
from lorarec.serving.schema_parts import example
from lorarec.serving.schemas import MAX_FILTER_VALUES, FilterValue, Text, refuse_nul

#: Maximum number of items in a request, and of columns of an item.
MAX_NEW_ITEMS = 500
MAX_COLUMNS = 100


def _refuse_empty_title(title: str) -> str:
    """Refuse a title of spaces, which datasets do not have either."""
    if not title.strip():
        raise ValueError("a title must not be empty")
    return title


ItemPath = Annotated[
    str,
    Path(min_length=1, max_length=500, description="Id of the item.", examples=["i3"]),
    AfterValidator(refuse_nul),
]
ColumnValue = FilterValue | Annotated[list[Text], Field(max_length=MAX_FILTER_VALUES)] | None
ItemColumns = Annotated[
    dict[Text, ColumnValue],
    Field(
        max_length=MAX_COLUMNS,
        description="Values of columns that the items of the dataset have besides id and title: text, numbers, true or "
        "false, or lists of text, as the column has, or null for a value that is missing.",
    ),
]
ItemTitleText = Annotated[Text, AfterValidator(_refuse_empty_title), Field(description="Title of the item.")]


class NewItem(BaseModel):
    """An item to add to the catalogue."""

    item_id: Annotated[Text, Field(description="Id of the item, which the catalogue does not have.")]
    title: ItemTitleText
    columns: ItemColumns = {}

    model_config = ConfigDict(extra="forbid")


class NewItemsRequest(BaseModel):
    """Items to add to the catalogue; either all of them are added or none."""

    items: Annotated[list[NewItem], Field(min_length=1, max_length=MAX_NEW_ITEMS, description="Items in any order.")]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"items": [{"item_id": "i90", "title": "green sofa", "columns": {"price": 19, "region": "DE"}}]}
            ]
        },
    )


class ChangeItemRequest(BaseModel):
    """What to change of an item; what is not given stays as it is."""

    title: Annotated[ItemTitleText | None, Field(description="The new title.")] = None
    columns: ItemColumns = {}

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"columns": {"price": 14}}, {"title": "red sofa"}]}
    )


class ItemDetails(CatalogueItem):
    """An item of the catalogue with all that is known of it."""

    columns: Annotated[dict[str, Any], Field(description="Values of the further columns; null if one is missing.")]
    withdrawn: Annotated[bool, Field(description="Whether the item is not recommended any more.")]

    model_config = example(
        {"item_id": "i1", "title": "red lamp", "columns": {"price": 12, "region": None}, "withdrawn": False}
    )


class AddedItems(BaseModel):
    """Number of items that were added."""

    added: Annotated[int, Field(description="Number of added items.")]

    model_config = example({"added": 1})
