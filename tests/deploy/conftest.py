"""The real Envoy, as in the end-to-end tests."""

from tests.e2e.conftest import envoy

__all__ = ["envoy"]
