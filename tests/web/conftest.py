"""The tests of the web extra use the record fixture of the tests of the service."""

from tests.service.conftest import computed

__all__ = ["computed"]
