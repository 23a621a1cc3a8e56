"""The API holds what its own OpenAPI says, on bodies that Schemathesis makes up.

SHELFPRICE_SCHEMA_EXAMPLES sets the number of examples for each operation.
"""

import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from ensemble.serving.app import create_app
from ensemble.serving.settings import Limits, ServeSettings
from tests.fake_prices import FakePriceModel, serving

EXAMPLES = int(os.environ.get("SHELFPRICE_SCHEMA_EXAMPLES", "12"))
FOLDER = Path(__file__).parent / "data"  # near products have no images
LIMITS = Limits(rows=4, text_chars=200, seconds=60)
gate = create_app(FakePriceModel(), FOLDER, ServeSettings(allow_links=True, limits=LIMITS))
schema = schemathesis.openapi.from_dict(gate._app.openapi())


@pytest.fixture(scope="module")
def url():
    with serving(gate) as address:
        yield address


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_its_schema_says(url, case):
    # In a form every value is text, so that there a number is no wrong type.
    untyped = [checks.negative_data_rejection] if case.media_type == "multipart/form-data" else []
    case.call_and_validate(base_url=url, excluded_checks=untyped)
