"""What scikit-learn asks of a regressor that is fitted on frames."""

import inspect
from typing import Any, Self

from store.errors import ConfigError


class FrameRegressor:
    """Parameters and tags, by the arguments of `__init__`.

    Without scikit-learn's base classes: to import them takes longer than to load a model.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change parameters.

        Raises:
            ConfigError: one is unknown.
        """
        known = self.get_params()
        if unknown := sorted(set(params) - set(known)):
            raise ConfigError(
                f"{type(self).__name__} has no parameter {unknown[0]!r}, it takes {', '.join(known)}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if v != defaults[k].default]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=False, positive_only=True),
            input_tags=InputTags(two_d_array=False, string=True, allow_nan=True),
            regressor_tags=RegressorTags(),
        )
