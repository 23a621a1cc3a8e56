"""The routes of one model, as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ensemble.model.price_model import PriceModel
from ensemble.serving.answers import ExplanationOut, Explanations, Health, PriceOut, Prices, Problem
from ensemble.serving.batcher import QueueFullError
from ensemble.serving.gate import Gate
from ensemble.serving.intake import FORM, JSON, Intake
from ensemble.serving.log import log_event
from ensemble.serving.metrics import CONTENT_TYPE
from ensemble.serving.page import INTERVAL, Page
from ensemble.serving.products import MalformedError
from ensemble.serving.settings import ServeSettings
from store.catalog.download.images import SNIFF_BYTES, sniff

STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
Interval = Annotated[
    float,
    Query(ge=0.5, le=0.999, allow_inf_nan=False, description="Probability that an interval holds its price."),
]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The form can't be read."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body is too large."},
    415: {"model": Problem, "description": "Neither JSON nor a form."},
    422: {"model": Problem, "description": "Not as the schema says."},
    429: {
        "model": Problem,
        "description": "Too many products are waiting: try again after `Retry-After` seconds.",
    },
    503: {"model": Problem, "description": "Not answered in time."},
}


def create_app(model: PriceModel, folder: Path, settings: ServeSettings) -> ASGIApp:
    """An application that prices by `model`, which was loaded from `folder`."""
    server = _Server(model, folder, settings)
    app = FastAPI(
        title="shelfprice",
        version=version("shelfprice"),
        description="Prices of products, each with an interval and the evidence.",
        lifespan=server.lifespan,
        docs_url=None,  # its scripts come from other servers
        redoc_url=None,
    )
    app.add_exception_handler(MalformedError, _answer_malformed)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(QueueFullError, _answer_full)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_bug)
    server.add_routes(app)
    return Gate(app, settings, server.metrics)


class _Server:
    """One model, and what answers for it."""

    def __init__(self, model: PriceModel, folder: Path, settings: ServeSettings) -> None:
        self._model = model
        self._folder = folder.resolve()
        self._settings = settings
        self._intake = Intake(model, settings, version("shelfprice"))
        self.metrics = self._intake.metrics
        self._page = Page(model.inputs, model.currency, partial(self._image_path, root=""))
        self._about: dict[str, Any] = {"currency": model.currency, "model": model.fingerprint}

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open what needs a running loop; at the end, finish what was begun."""
        await self._intake.open()
        yield
        await self._intake.close()
        log_event("stopped")

    def add_routes(self, app: FastAPI) -> None:
        """Every route; the schema of request bodies is the model's own, so it is added by hand."""
        body = {"requestBody": {"required": True, "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/ProductsBody"}},
            FORM: {"schema": self._intake.products.form_schema()},
        }}}  # fmt: skip
        post = partial(app.post, responses=_REFUSALS, openapi_extra=body)
        post("/v1/price", response_model=Prices, summary="Price products")(self.price)
        post("/v1/explain", response_model=Explanations, summary="Explain prices")(self.explain)
        app.get(
            "/v1/images/{path:path}",
            summary="An image of a near product",
            response_class=Response,
            responses={200: {"content": {"image/*": {}}}, 404: {"model": Problem}, 401: {"model": Problem}},
        )(self.image)
        app.get("/healthz", response_model=Health, summary="Whether the process answers")(self.healthz)
        app.get(
            "/readyz",
            response_model=Health,
            responses={503: {"model": Health}},
            summary="Whether the model answers",
        )(self.readyz)
        hidden: dict[str, Any] = {"include_in_schema": False}
        app.get("/metrics", **hidden)(self.metrics_page)
        app.get("/", response_class=HTMLResponse, **hidden)(self.page)
        app.post("/", response_class=HTMLResponse, **hidden)(self.page_answered)
        app.post("/answer", response_class=HTMLResponse, **hidden)(self.page_part)
        app.get("/static/{name}", **hidden)(self.static)
        app.openapi = lambda: self._openapi(app)  # type: ignore[method-assign]

    # ---- the API -----------------------------------------------------------------------------------

    async def price(self, request: Request, interval: Interval = 0.9) -> Response:
        """Price one or many products, given as JSON, or one given as a form with its image as a file."""
        products = await self._intake.read(request)
        priced, problems = await self._intake.ask("price", request, products, interval)
        out = [PriceOut.of(one, problem) for one, problem in zip(priced, problems, strict=True)]
        return _json(Prices(prices=out, interval=interval, **self._about))

    async def explain(self, request: Request, interval: Interval = 0.9) -> Response:
        """Say why products have their prices: heads, what moved the price, near products."""
        products = await self._intake.read(request)
        explained, problems = await self._intake.explain(request, products, interval)
        path = partial(self._image_path, root="/")
        out = [
            ExplanationOut.of(one, problem, path) for one, problem in zip(explained, problems, strict=True)
        ]
        return _json(Explanations(explanations=out, interval=interval, **self._about))

    async def image(self, path: str) -> Response:
        """An image in the model's folder; no other file of it is given away."""
        return await asyncio.to_thread(self._image, path)

    async def healthz(self) -> Health:
        """Answers as long as the process does."""
        return Health(status="ok", model=self._model.fingerprint)

    async def readyz(self) -> Response:
        """Answers 503 while the model takes longer for a batch than a request may take."""
        is_stuck = self._intake.is_stuck
        health = Health(status="stuck" if is_stuck else "ready", model=self._model.fingerprint)
        return _json(health, 503 if is_stuck else 200)

    async def metrics_page(self) -> Response:
        """Counters for Prometheus."""
        return Response(self.metrics.page(), media_type=CONTENT_TYPE)

    # ---- the page ----------------------------------------------------------------------------------

    async def page(self) -> HTMLResponse:
        """The form."""
        return HTMLResponse(self._page.form())

    async def page_answered(self, request: Request) -> HTMLResponse:
        """The form and its answer, for browsers without scripts."""
        cells: dict[str, str] = {}
        try:
            product = await self._intake.read_form(request)
            cells = product.cells
            explained, problems = await self._intake.explain(request, [product], INTERVAL)
        except MalformedError as error:
            return HTMLResponse(self._page.form(cells, problem=str(error)), 422)
        except QueueFullError as error:
            return HTMLResponse(self._page.form(cells, problem=str(error)), 429, _retry_after(error))
        except HTTPException as error:  # too much of something
            return HTMLResponse(
                self._page.form(cells, problem=error.detail), error.status_code, error.headers
            )
        return HTMLResponse(self._page.form(cells, self._page.answer(explained[0], problems[0])))

    async def page_part(self, request: Request) -> HTMLResponse:
        """The answer alone, for the page's script."""
        explained, problems = await self._intake.explain(
            request, [await self._intake.read_form(request)], INTERVAL
        )
        return HTMLResponse(self._page.part(self._page.answer(explained[0], problems[0])))

    async def static(self, name: str) -> Response:
        """Style and script of the page."""
        if name not in STATIC:
            raise HTTPException(404, "not found")
        content = (Path(__file__).parent / "static" / name).read_bytes()
        return Response(content, media_type=STATIC[name], headers={"cache-control": "private, max-age=300"})

    # ---- images of the model's folder --------------------------------------------------------------

    def _image_path(self, image: str | None, root: str) -> str | None:
        if image is None:
            return None
        path = (self._folder / image).resolve()
        return f"{root}v1/images/{path.relative_to(self._folder).as_posix()}"

    def _image(self, path: str) -> Response:
        with suppress(OSError, ValueError):
            file = (self._folder / path).resolve()
            if file.is_relative_to(self._folder) and file.is_file():
                with file.open("rb") as opened:
                    kind = sniff(opened.read(SNIFF_BYTES))
                if kind is not None:
                    headers = {"cache-control": "private, max-age=86400"}
                    return Response(file.read_bytes(), media_type=f"image/{kind.lower()}", headers=headers)
        raise HTTPException(404, "no such image")

    # ---- the rest ----------------------------------------------------------------------------------

    def _openapi(self, app: FastAPI) -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            parts = schema["components"]["schemas"]
            body = self._intake.products.body.model_json_schema(ref_template="#/components/schemas/{model}")
            parts.update(body.pop("$defs"), ProductsBody=body)
            if self._settings.token is not None:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema


def _json(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type=JSON)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _answer_malformed(request: Request, error: Exception) -> Response:
    return _problem(422, str(error))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """What FastAPI found wrong; its own answer repeats what was sent."""
    assert isinstance(error, RequestValidationError)
    told = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return _problem(422, "; ".join(told))


async def _answer_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFullError)
    return _problem(429, str(error), _retry_after(error))


def _retry_after(error: QueueFullError) -> dict[str, str]:
    return {"retry-after": str(error.retry_after)}


async def _answer_bug(request: Request, error: Exception) -> Response:
    return _problem(500, f"internal error, in the log under {request.state.id}")


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _problem(error.status_code, error.detail, headers)
