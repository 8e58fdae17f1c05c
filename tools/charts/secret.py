"""Prints the Secret with the platform's tokens, newly made, for ``kubectl apply --filename -``.

    python -m tools.charts.secret --name modelyard-auth --namespace ml

Each service has a token of its own, so that the ledger says who did what and one can be replaced alone; services keep
the hashes only. `admin` is for people who apply manifests, `client` for those who ask for predictions.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterable, Mapping

import yaml
from modelyard_common.auth.principals import Role
from modelyard_common.auth.tokens import hash_token

__all__ = ["PRINCIPALS", "new_tokens", "token_secret"]

PRINCIPALS: Mapping[str, Role] = {
    "registry": "service",
    "training": "service",
    "trainer": "service",
    "inference": "service",
    "drift": "service",
    "operator": "service",
    "admin": "admin",
    "client": "client",
}


def new_tokens(principals: Iterable[str] = PRINCIPALS) -> dict[str, str]:
    """Return a new token for every principal, and the file of their hashes under ``tokens``."""
    tokens = {principal: secrets.token_urlsafe(32) for principal in principals}
    accepted = "".join(f"{one} {PRINCIPALS[one]} {hash_token(token)}\n" for one, token in tokens.items())
    return {"tokens": accepted, **tokens}


def token_secret(name: str, namespace: str | None = None) -> dict[str, object]:
    """Return a Secret with the new tokens of all principals."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": new_tokens()}


def main() -> None:
    """Print for the command line."""
    parser = argparse.ArgumentParser(description="Print a Secret with new tokens for every service and role.")
    parser.add_argument("--name", default="modelyard-auth")
    parser.add_argument("--namespace")
    arguments = parser.parse_args()
    print(yaml.safe_dump(token_secret(arguments.name, arguments.namespace), sort_keys=False), end="")


if __name__ == "__main__":
    main()
