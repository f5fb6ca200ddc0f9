"""Routes of the API for users: their events, their histories, and all that is stored of them."""

from functools import partial

from fastapi import Response

from lorarec.serving.error_handlers import JSON_BODY
from lorarec.serving.error_responses import error_responses
from lorarec.serving.openapi import Application
from lorarec.serving.pages import Cursor, link_next
from lorarec.serving.response_schemas import EventsResponse, ItemsResponse, UsersResponse
from lorarec.serving.responses import items_response, stored_user
from lorarec.serving.schemas import Limit, SearchQuery
from lorarec.serving.service import Service
from lorarec.serving.user_schemas import DeletedUser, EventsRequest, IdempotencyKey, StoredUser, StoredUserId, UserId


def add_user_routes(app: Application, service: Service) -> None:
    """Add the routes of users to an application."""

    @app.post("/v1/events", responses=error_responses(409, 415, 422, 429, 503), dependencies=JSON_BODY)
    async def events(body: EventsRequest, idempotency_key: IdempotencyKey = None) -> EventsResponse:
        """Store interactions, which the next responses for their users take into account."""
        stored = await service.users.store(body, idempotency_key)
        return EventsResponse(stored=stored, known=len(body.events) - stored)

    @app.readable("/v1/users", responses=error_responses(422, 429, 503))
    async def users(
        response: Response, query: SearchQuery = "", limit: Limit = 10, cursor: Cursor = None
    ) -> UsersResponse:
        """Find users of the dataset by parts of their ids; users who are known from events only are not searched.

        Pages do not overlap, and no user is left out, while events arrive and users are deleted.
        """
        page = await service.find_users(query, limit, cursor)
        link_next(response, page.next, query=query, limit=limit)
        return UsersResponse(users=list(page.entries), total=page.total, next=page.next)

    @app.readable("/v1/users/{user_id:path}", response_model=StoredUser, responses=error_responses(404, 422, 429, 503))
    async def export_user(user_id: StoredUserId) -> Response:
        """Export all that the database and the answer log hold of a user, oldest first."""
        exported = await service.users.export(user_id, partial(stored_user, user_id))
        return Response(exported, media_type="application/json")

    @app.delete("/v1/users/{user_id:path}", responses=error_responses(404, 422, 429, 503))
    async def delete_user(user_id: StoredUserId) -> DeletedUser:
        """Delete all that the database and the answer log hold of a user.

        The dataset and trained adapters stay as they are.
        """
        deleted, answers = await service.users.delete(user_id)
        return DeletedUser(deleted=deleted, answers=answers)

    @app.readable("/v1/history", responses=error_responses(404, 422, 429, 503))
    async def history(user_id: UserId, limit: Limit = 10) -> ItemsResponse:
        """List the items of a user's history, latest first."""
        return items_response(await service.users.latest_items(user_id, limit), service.prompts)
