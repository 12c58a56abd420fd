"""Documents: listed, and taken in."""

from email.message import Message
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from db.documents import DocumentFilter
from graphql_api.request_bodies import read_form
from graphql_api.rest import examples
from graphql_api.rest.bodies import Document, DocumentBody, Documents, IngestionStatus
from graphql_api.rest.caller import Asking
from graphql_api.rest.openapi import example, problems
from graphql_api.rest.problems import ProblemRoute
from resolvers.cursors import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, PageArguments, document_cursor
from resolvers.documents import documents_page
from resolvers.errors import BadRequest, InvalidInput
from resolvers.intake import FileSource, Source, TextSource, UrlSource

router = APIRouter(tags=["documents"], route_class=ProblemRoute)

_BODY = DocumentBody.model_json_schema()
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "Markdown, plain text, HTML, PDF or DOCX.",
        },
        **{name: _BODY["properties"][name] for name in ("title", "visibility")},
    },
}
_ADDING: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _BODY,
                "examples": {
                    "text": {"summary": "A text", "value": examples.TEXT_DOCUMENT},
                    "url": {"summary": "A web address", "value": examples.WEB_DOCUMENT},
                },
            },
            "multipart/form-data": {
                "schema": _FORM,
                "example": {"file": "(the bytes)", "title": "Harbour rules"},
            },
        },
    }
}


@router.get(
    "/documents",
    summary="List documents",
    description="The caller's own and the shared ones, newest first.",
    responses={
        200: example("Newest first.", examples.DOCUMENTS),
        **problems(400, 401, 503),
    },
)
async def list_documents(
    caller: Asking,
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_SIZE, description="How many at most.")
    ] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[
        str | None, Query(description="A `next_cursor`: what comes after it.")
    ] = None,
    status: Annotated[IngestionStatus | None, Query(description="Only those this far.")] = None,
) -> Documents:
    database = caller.context.database
    asked = PageArguments(first=limit, after=cursor)
    page = await documents_page(caller.viewer, database, DocumentFilter(status), asked)
    return Documents(
        documents=[Document.of(row) for row in page.rows],
        next_cursor=document_cursor(page.rows[-1]) if page.has_next else None,
    )


@router.post(
    "/documents",
    status_code=201,
    summary="Add a document",
    description="From a web address or a text as JSON, or a file as a form. It is stored when this"
    " answers, and read after that: `status` goes from PENDING to READY or FAILED. The same bytes"
    " again are the same document.",
    openapi_extra=_ADDING,
    responses={
        201: example("It is stored.", examples.DOCUMENT | {"status": "PENDING", "chunk_count": 0}),
        200: example("It was there already.", examples.DOCUMENT) | {"model": Document},
        **problems(400, 401, 413, 429, 503),
    },
)
async def add_document(request: Request, caller: Asking, response: Response) -> Document:
    source, described = await _read(request)
    added = await caller.context.services.intake.add(
        caller.viewer,
        source,
        title=described.title,
        shared=described.visibility == "SHARED",
        request_id=caller.context.request_id,
    )
    response.status_code = 201 if added.is_new else 200
    return Document.of(added.document)


async def _read(request: Request) -> tuple[Source, DocumentBody]:
    """Read either kind of body.

    Raises `InvalidInput`, `BadRequest`, `Refused`, `RequestValidationError`.
    """
    content_type = Message()
    content_type["Content-Type"] = request.headers.get("Content-Type", "")
    match content_type.get_content_type():
        case "multipart/form-data":
            limits = request.app.state.body_limits
            async with read_form(request, limits, max_files=1) as form:
                return await _uploaded(form), _checked(_texts(form))
        case "application/json":
            try:
                body = _checked(await request.json())
            except (ValueError, RecursionError) as error:
                raise BadRequest("The body is no JSON.") from error
            return _source(body), body
        case _:
            raise BadRequest("Send application/json, or multipart/form-data with a file.")


def _source(body: DocumentBody) -> Source:
    if (body.url is None) == (body.text is None):
        raise InvalidInput("Give either url or text; a file comes as multipart/form-data.")
    return UrlSource(body.url) if body.url is not None else TextSource(body.text or "")


async def _uploaded(form: FormData) -> Source:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidInput("Send the file in this field, with its name.", "file")
    return FileSource(await file.read(), file.filename, file.content_type)


def _texts(form: FormData) -> dict[str, Any]:
    return {name: form[name] for name in ("title", "visibility") if name in form}


def _checked(values: Any) -> DocumentBody:
    try:
        return DocumentBody.model_validate(values)
    except ValidationError as error:
        faults = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(faults) from error
