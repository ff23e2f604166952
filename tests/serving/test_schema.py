"""Whatever is sent to any address of the schema, nothing fails on the server's side."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from realm.serving.settings import Limits

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
Serve = Callable[..., httpx.Client]

OPERATIONS = 13
"""In the schema; so that a new one is noticed, and tried."""


def test_generated_requests_never_fail_on_our_side(serve: Serve, model: Any) -> None:
    limits = Limits(requests_per_second=1e6, burst=1_000_000)
    client = serve(model, limits=limits)
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == OPERATIONS
    for operation in operations:
        cases = operation.as_strategy()

        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def ask(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            case.validate_response(response, excluded_checks=[checks.positive_data_acceptance])

        ask()
    assert client.get("/healthz").status_code == 200
