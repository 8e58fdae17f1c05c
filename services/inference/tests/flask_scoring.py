"""A scoring app as people write it with Flask: MLflow's format, no MLflow. ``python flask_scoring.py PORT``."""

import sys
import time

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

app = Flask(__name__)


@app.post("/invocations")
def invocations() -> Response | tuple[Response, int, dict[str, str]]:
    """Answer the probability that the load is high; loads of 500, 429, 503, 504 and -1 stand for its bad days.

    A load of 401 is answered to those who are known.
    """
    split = request.get_json()["dataframe_split"]
    place = split["columns"].index("load")
    loads = [row[place] for row in split["data"]]
    if 401 in loads and request.headers.get("Authorization") != "Bearer known":
        return jsonify({"error": f"the secret is {loads}"}), 401, {}
    for status in (500, 429, 503, 504):
        if status in loads:
            return jsonify({"error": f"the secret is {loads}"}), status, {"Retry-After": "7"}
    if -1 in loads:
        return jsonify({"predictions": ["nonsense"] * len(loads)})
    if -2 in loads:
        return jsonify({"predictions": [0.5] * (len(loads) + 1)})
    if -3 in loads:
        time.sleep(20)
    return jsonify({"predictions": [0.9 if load > 0 else 0.2 for load in loads]})


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
