"""Asks one model again and again until SIGTERM, then prints what became of every request. Standard library only.

It runs in a pod, over keep-alive connections to the Service, and never asks twice: what fails, failed. Like every
client's pool it looks whether the other side hung up before it uses an idle connection.
"""

import http.client
import json
import select
import signal
import sys
import threading
import time

HOST, PORT, PATH, TOKEN, BODY, CONNECTIONS, PAUSE_S = sys.argv[1:8]
stopped = threading.Event()
failures: list[str] = []
versions: dict[str, int] = {}
lock = threading.Lock()


def ask_on() -> None:
    connection = None
    while not stopped.wait(float(PAUSE_S)):
        if connection is None or connection.sock is None or select.select([connection.sock], [], [], 0)[0]:
            connection = http.client.HTTPConnection(HOST, int(PORT), timeout=20)
        began = time.time()
        try:
            headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
            connection.request("POST", PATH, BODY, headers)
            response = connection.getresponse()
            content = response.read()
            failure = "" if response.status == 200 else f"{response.status} {content[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            connection, failure = None, repr(error)
        with lock:
            if failure:
                failures.append(f"{began:.1f} after {time.time() - began:.1f} s: {failure}")
            else:
                version = response.headers.get("modelyard-version", "")
                versions[version] = versions.get(version, 0) + 1


signal.signal(signal.SIGTERM, lambda *_: stopped.set())
workers = [threading.Thread(target=ask_on) for _ in range(int(CONNECTIONS))]
for worker in workers:
    worker.start()
while not stopped.wait(1.0):
    pass
for worker in workers:
    worker.join()
sys.stdout.write(json.dumps({"answered": versions, "failures": failures[:50]}) + "\n")
