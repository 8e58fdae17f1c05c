"""Makes the bucket of MLflow's artifacts unless it is there, and ends."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main() -> None:
    """Make the bucket that the command names, at ``AWS_ENDPOINT_URL``."""
    [name] = sys.argv[1:]
    store = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 5}))
    try:
        store.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        store.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
