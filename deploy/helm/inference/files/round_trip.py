"""One inference round trip, as a client does it: what `helm test` runs. Standard library only.

Asks the V2 repository what is served, makes one row from each model's own metadata, and wants an answer with outputs.
On a platform that serves nothing yet, it wants the refusal that a model nobody knows gets: the request has then been
through the Service, past the token and into the API. A model that is named must be there. The row is logged like any
other and never gets a label.

    python round_trip.py URL [MODEL]        # the token is read from the file that TOKEN_FILE names
"""

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

UNKNOWN = "modelyard-round-trip"
SAMPLES = {"BYTES": "a", "BOOL": True}


def ask(url, token, body=None):
    """Return the status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310  # the chart says http
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read() or b"{}")


def one_row(metadata):
    """Return a request with one row: a 1, or the like, for every input."""
    inputs = []
    for column in metadata["inputs"]:
        shape = [size if size > 0 else 1 for size in column["shape"]]
        data = [SAMPLES.get(column["datatype"], 1)] * math.prod(shape)
        inputs.append({"name": column["name"], "datatype": column["datatype"], "shape": shape, "data": data})
    return {"inputs": inputs}


def round_trip(base, token, model):
    """Return a sentence about what answered; raise AssertionError about what did not."""
    status, index = ask(f"{base}/v2/repository/index", token, {})
    if status != 200:
        raise AssertionError(f"the repository index answered {status}: {index}")
    served = sorted({entry["name"] for entry in index if entry["state"] == "READY"})
    if model and model not in served:
        raise AssertionError(f"{model} is not served; served are: {', '.join(served) or 'none'}")
    if not served:
        column = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}
        status, refusal = ask(f"{base}/v2/models/{UNKNOWN}/infer", token, {"inputs": [column]})
        if status != 404:
            raise AssertionError(f"a model that nobody knows got {status}, not 404: {refusal}")
        return "no model is served yet; the API took the token and answered"
    for name in [model] if model else served:
        status, metadata = ask(f"{base}/v2/models/{name}", token)
        if status != 200:
            raise AssertionError(f"the metadata of {name} answered {status}: {metadata}")
        status, answer = ask(f"{base}/v2/models/{name}/infer", token, one_row(metadata))
        if status != 200 or not answer.get("outputs"):
            raise AssertionError(f"{name} answered {status}: {answer}")
    return f"answered: {model or ', '.join(served)}"


def main():
    """Try until it works or the time is over: endpoints may be a moment behind the pods."""
    base, model = sys.argv[1].rstrip("/"), (sys.argv[2] if len(sys.argv) > 2 else "")
    token = Path(os.environ["TOKEN_FILE"]).read_text().strip()
    deadline = time.monotonic() + float(os.environ.get("TIMEOUT_S", "60"))
    while True:
        try:
            print(round_trip(base, token, model))  # noqa: T201  # read by whoever runs the test
            return
        except (AssertionError, OSError, ValueError, KeyError) as problem:
            if time.monotonic() > deadline:
                sys.exit(f"{type(problem).__name__}: {problem}")
            time.sleep(1)


if __name__ == "__main__":
    main()
