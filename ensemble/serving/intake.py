"""From a request to the model and back: products are read, their images looked at, all of it asked in batches."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ensemble.model.answers import Explanation, Priced
from ensemble.model.price_model import PriceModel
from ensemble.serving.batcher import Batcher, Call
from ensemble.serving.images import ImageRead, LinkReader, checked, from_base64
from ensemble.serving.log import log_event
from ensemble.serving.metrics import Metrics
from ensemble.serving.products import AskedProduct, Base64Image, LinkImage, MalformedError, Products
from ensemble.serving.settings import ServeSettings

CLIENT_GONE = 499  # in the log alone: nobody is there to read it
JSON, FORM = "application/json", "multipart/form-data"


class Intake:
    """Takes the products of requests to the model."""

    def __init__(self, model: PriceModel, settings: ServeSettings, version: str) -> None:
        limits = settings.limits
        self.products = Products(model.inputs, limits, allow_links=settings.allow_links)
        self._settings = settings
        self._limits = limits
        self._batcher = Batcher(
            {"price": Call(model.embed, model.price), "explain": Call(model.embed, model.explain)},
            batch_rows=limits.batch_rows,
            waiting_rows=limits.waiting_rows,
            on_batch=self._count_batch,
            on_error=self._count_error,
        )
        self.metrics = Metrics(model.fingerprint, version, lambda: self._batcher.n_waiting)
        self._links: LinkReader | None = None

    async def open(self) -> None:
        """Open what needs a running loop."""
        if self._settings.allow_links:
            self._links = await LinkReader(self._settings).__aenter__()

    async def close(self) -> None:
        """Finish what was begun."""
        await self._batcher.close()
        if self._links is not None:
            await self._links.__aexit__(None, None, None)

    @property
    def is_stuck(self) -> bool:
        """Whether the model takes longer for a batch than a request may take."""
        return self._batcher.busy_seconds > self._limits.seconds

    async def read(self, request: Request) -> list[AskedProduct]:
        """The products of a JSON body or a form."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == JSON:
            return self.products.from_json(await request.body())
        if kind == FORM:
            return [await self.read_form(request)]
        raise HTTPException(415, f"the content type must be {JSON} or {FORM}")

    async def read_form(self, request: Request) -> AskedProduct:
        """The product of a form, as a browser or curl sends it."""
        parts: list[tuple[str, str | bytes]] = []
        async with request.form(
            max_files=1,
            max_fields=len(self.products.columns) + 1,
            max_part_size=4 * self._limits.text_chars,
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    content = await value.read()
                    if value.filename or content:  # a browser sends an empty part for no file
                        parts.append((name, content))
                elif value or name != self.products.inputs.image:
                    parts.append((name, value))
        return self.products.from_form(parts)

    async def explain(
        self, request: Request, products: Sequence[AskedProduct], interval: float
    ) -> tuple[list[Explanation], list[str | None]]:
        """Explanations, and what was wrong with each image."""
        if len(products) > self._limits.explained_rows:
            raise MalformedError(
                f"products: at most {self._limits.explained_rows} are explained in one request"
            )
        return await self.ask("explain", request, products, interval)

    async def ask(
        self, name: str, request: Request, products: Sequence[AskedProduct], interval: float
    ) -> tuple[list[Any], list[str | None]]:
        """Answers of the model, and what was wrong with each image."""
        request.state.counts = {"rows": len(products)}
        images = await _all_of([self._image_of(product, request.state.hold) for product in products])
        most = max(self._limits.all_pixels, self._limits.image_pixels)
        if sum(image.n_pixels for image in images if image) > most:
            raise HTTPException(413, f"the images of one request have more than {most} pixels together")
        column = self.products.inputs.image
        rows = [
            product.cells if image is None or column is None else product.cells | {column: image.content}
            for product, image in zip(products, images, strict=True)
        ]
        answers = await _while_connected(request, self._batcher.ask(name, rows, interval))
        priced: list[Priced] = [one.priced if isinstance(one, Explanation) else one for one in answers]
        self.metrics.count_priced(priced)
        return answers, [image.problem if image else None for image in images]

    async def _image_of(self, product: AskedProduct, hold: Callable[[int], None]) -> ImageRead | None:
        given, most = product.image, self._limits.image_pixels
        if given is None:
            return None
        if isinstance(given, LinkImage):
            assert self._links is not None  # else the schema has no links
            image = await self._links.read(given.link)
            hold(len(image.content))
            return image
        if isinstance(given, Base64Image):
            return await asyncio.to_thread(from_base64, given.base64, most)
        return await asyncio.to_thread(checked, given, most)

    def _count_batch(self, name: str, n_rows: int, seconds: float) -> None:
        self.metrics.count_batch(name, n_rows, seconds)
        log_event("batch", logging.DEBUG, call=name, rows=n_rows, seconds=round(seconds, 4))

    def _count_error(self, error: Exception) -> None:
        self.metrics.errors.inc()


async def _all_of(coroutines: Sequence[Coroutine[Any, Any, ImageRead | None]]) -> list[ImageRead | None]:
    """The result of each; an error of one ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in coroutines]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _while_connected(request: Request, asking: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """What is asked for, unless the client leaves before it is there: then its place in the queue is free."""
    answering, leaving = asyncio.ensure_future(asking), asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise HTTPException(CLIENT_GONE, "the client is gone")
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
