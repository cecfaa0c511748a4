import pytest
from tests.data.shards.stores import object_store


@pytest.fixture(scope="session")
def store():
    """An S3 server of this machine, and its address in the environment."""
    with object_store() as address:
        yield address
