"""As much of a Kubernetes API server as Spark's driver calls: it keeps pods in memory, and notes who asked for what."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

# What the API server takes a request for, by its method: on one object, and on all of a kind.
VERBS = {
    "GET": ("get", "list"),
    "POST": ("create", "create"),
    "PUT": ("update", "update"),
    "PATCH": ("patch", "patch"),
    "DELETE": ("delete", "deletecollection"),
}
DRIVER = "unique-users-driver"


class KubernetesApi:
    """Serves on loopback while it is entered. `calls` are the rights that the requests need: (verb, resource)."""

    def __init__(self) -> None:
        """Has one pod, the driver's, which is ready."""
        self.calls: set[tuple[str, str]] = set()
        self.pods: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.stopped = threading.Event()
        self.keep({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": DRIVER}, "spec": {"containers": []}})
        self.pods[DRIVER]["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it serves, without a password and in plain text."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def keep(self, thing: dict[str, Any]) -> dict[str, Any]:
        """A new object, with what the API server adds to it."""
        metadata = thing["metadata"]
        metadata.update(namespace="streaming", uid=str(uuid.uuid4()), resourceVersion="1")
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        if thing["kind"] == "Pod":
            thing["status"] = {"phase": "Running"}
            self.pods[metadata["name"]] = thing
        self.created.append(thing)
        return thing

    def fail_pod(self, name: str) -> None:
        """Lets a pod end as one does whose container has failed."""
        terminated = {"exitCode": 1, "reason": "Error"}
        container = {"name": "executor", "state": {"terminated": terminated}, "ready": False, "restartCount": 0}
        self.pods[name]["status"] = {
            "phase": "Failed",
            "containerStatuses": [{**container, "image": "", "imageID": ""}],
        }

    def list_executors(self) -> list[str]:
        """The names of the pods that the driver has made, and not removed."""
        return [name for name in self.pods if name != DRIVER]

    def answer(self, verb: str, resource: str, name: str, body: Any) -> tuple[int, Any]:
        """Status and answer of a request."""
        self.calls.add((verb, resource))
        if verb == "create":
            return 201, self.keep(body)
        if verb in ("get", "patch", "delete") and resource == "pods":
            pod = self.pods.get(name)
            if pod is None:
                return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            if verb == "delete":
                del self.pods[name]
            return 200, pod
        if verb == "deletecollection" and resource == "pods":
            for executor in self.list_executors():
                del self.pods[executor]
        items = list(self.pods.values()) if resource == "pods" else []
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}

    def __enter__(self) -> KubernetesApi:
        """Starts."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


def make_handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    """The handler of an API's requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            parts = urlsplit(self.path)
            _, _, path = parts.path.partition("/namespaces/streaming/")
            resource, _, name = path.partition("/")
            query = parse_qs(parts.query)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            if query.get("watch") == ["true"]:
                api.calls.add(("watch", resource))
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                # Without an upgrade to a web socket the client watches by plain HTTP; nothing happens.
                if "Upgrade" in self.headers:
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    api.stopped.wait()
                return
            status, answer = api.answer(VERBS[self.command][not name], resource, name, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
