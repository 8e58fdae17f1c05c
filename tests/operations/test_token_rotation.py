"""The rotation of docs/operations.md, against a Secret in a file: at no moment is the service refused."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from modelyard_common.auth.tokens import hash_token, parse_tokens

from tests.operations.handbook import blocks, run
from tools.charts.secret import PRINCIPALS, token_secret

# As much of kubectl as the handbook asks of a Secret: its data by a path, and a merge patch.
KUBECTL = """#!{python}
import json, pathlib, re, sys
place = pathlib.Path({place!r})
secret = json.loads(place.read_text())
words = sys.argv[1:]
assert words[:2] == ["--namespace", "ml"] and words[3:5] == ["secret", "modelyard-auth"], words
if words[2] == "get":
    [key] = re.fullmatch(r"jsonpath={{\\.data\\.(\\w+)}}", words[6]).groups()
    print(secret[key], end="")
else:
    assert words[2] == "patch", words
    place.write_text(json.dumps(secret | json.loads(words[6])["data"]))
"""


def test_the_service_is_known_at_every_step_and_its_old_token_is_not_at_the_end(tmp_path: Path) -> None:
    secret, programs = tmp_path / "secret.json", tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").write_text(KUBECTL.format(python=sys.executable, place=str(secret)))
    (programs / "kubectl").chmod(0o755)
    made = token_secret("modelyard-auth")["stringData"]
    assert isinstance(made, dict)
    secret.write_text(json.dumps({key: base64.b64encode(value.encode()).decode() for key, value in made.items()}))
    environment = {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    old = made["drift"]
    used = []

    for block in blocks("Secrets"):
        run(block, folder=tmp_path, environment=environment)
        held = {key: base64.b64decode(value).decode() for key, value in json.loads(secret.read_text()).items()}
        accepted = parse_tokens(held["tokens"])
        used.append(held["drift"])
        # Pods hold the token of this step or of the one before.
        assert all(hash_token(token) in accepted for token in used[-2:])
    assert {name: accepted[hash_token(held[name])].role for name in PRINCIPALS} == PRINCIPALS
    assert used[0] == old
    assert hash_token(old) not in accepted
    assert len(accepted) == len(PRINCIPALS)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("tokens", "drift"))]
