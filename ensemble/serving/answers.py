"""What the API answers, as schemas."""

from collections.abc import Callable

from pydantic import BaseModel, Field

from ensemble.model.answers import Explanation, Priced


class PriceOut(BaseModel):
    """The price of one product."""

    price: float | None = Field(description="null: the product was refused, see `reason`")
    low: float | None = Field(description="The interval holds the price with the probability asked for.")
    high: float | None
    flags: list[str] = Field(description="What the product lacked, or what makes its price less certain.")
    reason: str | None = Field(description="Why the product was refused.")
    image_problem: str | None = Field(description="Why its image was not read; it was priced without.")

    @classmethod
    def of(cls, priced: Priced, image_problem: str | None) -> "PriceOut":
        return cls(
            price=priced.price,
            low=priced.low,
            high=priced.high,
            flags=list(priced.flags),
            reason=priced.reason,
            image_problem=image_problem,
        )


class EffectOut(BaseModel):
    """One thing that moved the price."""

    what: str
    log_effect: float = Field(description="What it added to the log price.")
    text: str = Field(description="The same for people, such as \"+12% 'organic'\".")


class HeadOut(BaseModel):
    """One head of the blend."""

    head: str
    share: float = Field(description="Its weight in the blend; they add up to 1.")
    log_price: float


class NearOut(BaseModel):
    """A product of the training data that is near to the one priced."""

    id: int | str
    text: str
    price: float
    cosine: dict[str, float] = Field(description="By vector set.")
    image: str | None = Field(description="Path of a small image of it on this server.")


class ExplanationOut(BaseModel):
    """Why one product has its price."""

    priced: PriceOut
    base_price: float | None = Field(description="The price before any effect.")
    heads: list[HeadOut]
    effects: list[EffectOut]
    near: list[NearOut]

    @classmethod
    def of(
        cls, explained: Explanation, image_problem: str | None, image_path: Callable[[str | None], str | None]
    ) -> "ExplanationOut":
        shares = explained.shares
        return cls(
            priced=PriceOut.of(explained.priced, image_problem),
            base_price=explained.base_price,
            heads=[HeadOut(head=h, share=shares[h], log_price=p) for h, p in explained.log_prices.items()],
            effects=[
                EffectOut(what=one.what, log_effect=one.log_effect, text=one.text)
                for one in explained.effects
            ],
            near=[
                NearOut(
                    id=one.id, text=one.text, price=one.price, cosine=one.cosine, image=image_path(one.image)
                )
                for one in explained.near
            ],
        )


class About(BaseModel):
    """What every answer says of itself."""

    currency: str | None = Field(description="Of all prices, as the training file wrote it.")
    interval: float = Field(description="Probability that an interval holds its price.")
    model: str = Field(description="Fingerprint of the model.")


class Prices(About):
    """Prices in the order of the request."""

    prices: list[PriceOut]


class Explanations(About):
    """Explanations in the order of the request."""

    explanations: list[ExplanationOut]


class Health(BaseModel):
    """Whether the server does its work."""

    status: str
    model: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
