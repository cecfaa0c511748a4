"""An object store on this machine, by moto's server: real requests, nothing kept."""

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import boto3

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def object_store(bucket="bucket"):
    """Address of a server with one bucket, which is in the environment, too, until the server ends."""
    command = [sys.executable, "-c", "from moto.server import main; main(['-p', '0'])"]
    with tempfile.NamedTemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            while not (found := re.search(r"Running on (http://\S+)", Path(log.name).read_text())):
                assert server.poll() is None, Path(log.name).read_text()
                time.sleep(0.05)
            with mock.patch.dict(os.environ, {**KEYS, "AWS_ENDPOINT_URL": found[1]}):
                boto3.client("s3").create_bucket(Bucket=bucket)
                yield found[1]
        finally:
            server.kill()
