"""Routes of the API for the items of the catalogue."""

from fastapi import Response

from lorarec.serving.error_handlers import JSON_BODY
from lorarec.serving.error_responses import error_responses
from lorarec.serving.item_schemas import AddedItems, ChangeItemRequest, ItemDetails, ItemPath, NewItemsRequest
from lorarec.serving.openapi import Application
from lorarec.serving.pages import Cursor, link_next
from lorarec.serving.response_schemas import ItemsPage
from lorarec.serving.responses import item_details, items_response
from lorarec.serving.schemas import Limit, SearchQuery
from lorarec.serving.service import Service
from lorarec.serving.stored_items import StoredItem


def add_item_routes(app: Application, service: Service) -> None:
    """Add the routes of the catalogue to an application."""

    @app.readable("/v1/items", responses=error_responses(422, 429))
    async def items(response: Response, query: SearchQuery = "", limit: Limit = 10, cursor: Cursor = None) -> ItemsPage:
        """Find items of the catalogue by words of their titles, best match first.

        Pages do not overlap, and no item is left out, while items are added or withdrawn.
        """
        page = await service.find_items(query, limit, cursor)
        link_next(response, page.next, query=query, limit=limit)
        return ItemsPage(items=items_response(page.entries, service.prompts).items, total=page.total, next=page.next)

    @app.post("/v1/items", responses=error_responses(409, 415, 422, 429, 503), dependencies=JSON_BODY)
    async def add_items(body: NewItemsRequest) -> AddedItems:
        """Add items to the catalogue, which are ranked and recommended from then on as new items.

        An item that was withdrawn is recommended again. Other replicas know the items some seconds later.
        """
        items = [StoredItem(each.item_id, each.title, each.columns, withdrawn=False) for each in body.items]
        await service.catalogue.add(items)
        return AddedItems(added=len(items))

    @app.readable("/v1/items/{item_id:path}", responses=error_responses(404, 422))
    def describe_item(item_id: ItemPath) -> ItemDetails:
        """Describe an item of the catalogue, also a withdrawn one."""
        return item_details(item_id, service.catalogue)

    @app.patch("/v1/items/{item_id:path}", responses=error_responses(404, 415, 422, 429, 503), dependencies=JSON_BODY)
    async def change_item(item_id: ItemPath, body: ChangeItemRequest) -> ItemDetails:
        """Change the title or columns of an item; what is not given stays as it is."""
        await service.catalogue.change(item_id, body.title, body.columns)
        return item_details(item_id, service.catalogue)

    @app.delete("/v1/items/{item_id:path}", status_code=204, responses=error_responses(404, 422, 429, 503))
    async def withdraw_item(item_id: ItemPath) -> None:
        """Withdraw an item, which is neither recommended nor found any more; histories keep it."""
        await service.catalogue.withdraw(item_id)
