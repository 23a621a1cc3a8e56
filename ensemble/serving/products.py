"""Products as a request names them: by the model's own columns, checked before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_validator

from ensemble.serving.settings import Limits

if TYPE_CHECKING:
    from ensemble.model.price_model import ModelInputs

MOST_PROBLEMS = 10  # of one request, that are told
_WORD_CHARS = 80


class _Strict(BaseModel):
    """Knows its own names alone, and stops at a few others: each one that is refused takes time and memory."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _with_few_others(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = [field.alias or name for name, field in cls.model_fields.items()]
        others = islice((name for name in given if name not in known), MOST_PROBLEMS)
        return {name: given[name] for name in (*others, *(name for name in known if name in given))}


class Base64Image(_Strict):
    """An image in the request itself."""

    base64: str = Field(description="The image file, as base64 of the standard alphabet.")


class LinkImage(_Strict):
    """An image that the server fetches."""

    link: str = Field(description="An http or https link to an image file.", max_length=4096)


class MalformedError(Exception):
    """A request that is not what the schema says; the message says where, and repeats no values."""


@dataclass(frozen=True)
class AskedProduct:
    """One product of a request: cells by column, and its image as the request gave it."""

    cells: dict[str, Any]
    image: Base64Image | LinkImage | bytes | None = None


class Products:
    """Reads the products of requests for one model.

    Args:
        inputs: columns that the model reads; a request may name no others.
        allow_links: images may be links.
    """

    def __init__(self, inputs: "ModelInputs", limits: Limits, *, allow_links: bool) -> None:
        self.inputs = inputs
        self._limits = limits
        self.columns = tuple(dict.fromkeys((*inputs.text, *inputs.numeric, *inputs.categorical)))
        self.body = self._body_type(allow_links, limits.rows)
        self._adapter = TypeAdapter(self.body)

    def _body_type(self, allow_links: bool, most_rows: int) -> type[BaseModel]:
        cell = Annotated[str, Field(max_length=self._limits.text_chars)]
        kinds: dict[str, Any] = {column: cell | float | None for column in self.inputs.numeric}
        kinds |= {column: cell | bool | int | float | None for column in self.inputs.categorical}
        kinds |= {column: cell | None for column in self.inputs.text}
        if self.inputs.image is not None:
            kinds[self.inputs.image] = (Base64Image | LinkImage if allow_links else Base64Image) | None
        self._aliases = {f"column_{n}": name for n, name in enumerate(kinds)}
        fields: dict[str, Any] = {
            f"column_{n}": (kind, Field(None, alias=name)) for n, (name, kind) in enumerate(kinds.items())
        }
        product = create_model("Product", __base__=_Strict, __doc__="Columns may be left out.", **fields)
        products = Annotated[list[product], Field(min_length=1, max_length=most_rows)]  # type: ignore[valid-type]
        return create_model(
            "ProductsBody", __base__=_Strict, __doc__="Products to price.", products=(products, ...)
        )

    def from_json(self, content: bytes) -> list[AskedProduct]:
        """Products of a JSON body.

        Raises:
            MalformedError: it is not JSON, or not as the schema says.
        """
        try:
            body: Any = self._adapter.validate_json(content)
        except ValidationError as error:
            raise MalformedError(_told(error)) from None
        return [
            self._product({self._aliases[k]: getattr(p, k) for k in p.model_fields_set})
            for p in body.products
        ]

    def from_form(self, parts: Sequence[tuple[str, str | bytes]]) -> AskedProduct:
        """The one product of a form: text parts by column, the image as a file.

        Raises:
            MalformedError: a part is no column, is given twice, or is a file where text belongs.
        """
        names = [name for name, _ in parts]
        cells: dict[str, Any] = {}
        for name, value in parts:
            if names.count(name) > 1:
                raise MalformedError(f"{_shown(name)}: given more than once")
            if name != self.inputs.image and name not in self.columns:
                raise MalformedError(f"{_shown(name)}: the model has no such column")
            if isinstance(value, bytes) != (name == self.inputs.image):
                raise MalformedError(
                    f"{_shown(name)}: {'a file' if name == self.inputs.image else 'text'} is wanted"
                )
            if isinstance(value, str) and len(value) > self._limits.text_chars:
                raise MalformedError(f"{_shown(name)}: more than {self._limits.text_chars} characters")
            cells[name] = value or None
        return self._product(cells)

    def _product(self, cells: Mapping[str, Any]) -> AskedProduct:
        rest = {name: value for name, value in cells.items() if name != self.inputs.image}
        for name in self.inputs.categorical:
            if isinstance(rest.get(name), (int, float)):
                rest[name] = str(rest[name])
        return AskedProduct(rest, cells.get(self.inputs.image) if self.inputs.image else None)

    def form_schema(self) -> dict[str, Any]:
        """JSON schema of the parts of a form."""
        parts: dict[str, Any] = {
            name: {"type": "string", "maxLength": self._limits.text_chars} for name in self.columns
        }
        if self.inputs.image is not None:
            parts[self.inputs.image] = {"type": "string", "format": "binary"}
        return {"type": "object", "properties": parts, "additionalProperties": False}


def _told(error: ValidationError) -> str:
    """Where and what, without the values that were sent."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [": ".join(filter(None, (_where(one["loc"]), one["msg"]))) for one in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        told.append("and more")
    return "; ".join(told)


def _where(place: Sequence[int | str]) -> str:
    return ".".join(_shown(str(step)) for step in place)


def _shown(name: str) -> str:
    """A name that the client chose, short and printable."""
    from store.printable import printable

    return printable(name if len(name) <= _WORD_CHARS else f"{name[:_WORD_CHARS]}…")
