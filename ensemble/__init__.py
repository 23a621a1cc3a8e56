"""Combines the predictions of several heads into one price, estimates its error, and serves it as a model."""

from typing import TYPE_CHECKING

from store.lazy import lazy_names

if TYPE_CHECKING:
    from ensemble.model.price_model import PriceModel as PriceModel
    from ensemble.report.run import Report as Report
    from ensemble.report.run import write_report as write_report
    from ensemble.score import BlendScore as BlendScore
    from ensemble.score import best_weights as best_weights
    from ensemble.score import honest_score as honest_score
    from ensemble.score import make_blend as make_blend
    from ensemble.score import write_submission as write_submission

_MODULES = {
    "BlendScore": "ensemble.score",
    "PriceModel": "ensemble.model.price_model",
    "Report": "ensemble.report.run",
    "best_weights": "ensemble.score",
    "honest_score": "ensemble.score",
    "make_blend": "ensemble.score",
    "write_report": "ensemble.report.run",
    "write_submission": "ensemble.score",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
