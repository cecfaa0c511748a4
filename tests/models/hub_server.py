"""A model hub on this machine: as much of its interface as fetching and uploading a small repository takes."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_server(files):
    """Serves files as those of every repository; yields its address and what was committed, by path."""
    committed, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, content, status=200, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            asked.append(self.path)
            path = self.path.partition("?")[0]
            named = re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", path)
            if named and named[1] in files:
                content = files[named[1]]
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.answer(content, X_Repo_Commit=COMMIT, ETag=etag, Accept_Ranges="bytes")
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/.+)?", path)
            if found:
                siblings = [{"rfilename": name} for name in files]
                return self.answer({"id": found[1], "modelId": found[1], "sha": COMMIT, "siblings": siblings})
            tree = re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/.+", path)
            if tree:
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self.answer(entries, Content_Type="application/json")
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")

        do_HEAD = do_GET  # noqa: N815  # as the base class calls it

        def do_POST(self):
            asked.append(self.path)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/repos/create":
                made = json.loads(body)
                repo = "/".join(part for part in (made.get("organization"), made["name"]) if part)
                return self.answer({"url": f"{address}/{repo}", "name": repo, "id": repo})
            if "/preupload/" in self.path:
                given = json.loads(body)["files"]
                modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in given]
                return self.answer({"files": modes})
            if "/commit/" in self.path:
                for line in body.splitlines():
                    part = json.loads(line)
                    if part["key"] == "file":
                        committed[part["value"]["path"]] = base64.b64decode(part["value"]["content"])
                url = f"{address}/somebody/net/commit/{COMMIT}"
                return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
            return self.answer({})

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address, committed, asked
        server.shutdown()
