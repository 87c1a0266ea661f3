"""The same record as for the tests of the service."""

from tests.service.conftest import computed

__all__ = ["computed"]
