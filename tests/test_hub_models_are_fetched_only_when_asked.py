"""`hf:OWNER/NAME`: fetched with --download alone, from then on taken from the cache; a hub on this machine serves."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoint_fixtures import same_imports
from run_fixtures import tiny_config

from musicssl_jax.interop.pretrained import Origin, Pretrained, shapes_of
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.interop.transformers_folder import write_transformers

pytest.importorskip("huggingface_hub", reason="what fetches from a hub")

NAME = "somebody/music2vec-tiny"
COMMIT = hashlib.sha1(b"a commit").hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """The two routes of a hub that a snapshot needs, and a note of every request."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith(f"/api/models/{NAME}/revision/"):
            files = [{"rfilename": path.name} for path in self.server.folder.iterdir()]
            self._send(json.dumps({"id": NAME, "sha": COMMIT, "siblings": files}).encode())
        elif self.path.startswith(f"/{NAME}/resolve/"):
            self._send((self.server.folder / self.path.rpartition("/")[2]).read_bytes())
        else:
            self.send_error(404, "no such model")

    do_HEAD = do_GET

    def _send(self, content: bytes):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def model(tmp_path):
    """A transformers folder with random parameters, and a file that nobody wants."""
    config = tiny_config()
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes_of(config).items()}
    folder = tmp_path / "served"
    write_transformers(Pretrained(config, params, {}, (), 7, {}, Origin("run", "x")), folder, license="", scores={})
    (folder / "training_args.bin").write_bytes(b"not asked for")
    return folder, params


@pytest.fixture
def hub(model):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = model[0], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def convert(hub, home: Path, *flags: str) -> subprocess.CompletedProcess:
    environment = same_imports() | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(home),
        "JAX_PLATFORMS": "cpu",
        "no_proxy": "127.0.0.1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "musicssl_jax.convert", "--to=jax", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_model_is_fetched_when_asked_and_kept(hub, model, tmp_path):
    unasked = convert(hub, tmp_path / "home", f"--input=hf:{NAME}", f"--output={tmp_path / 'a'}")
    assert unasked.returncode == 2
    assert unasked.stderr.count("\n") == 1 and "nothing is fetched unasked" in unasked.stderr
    assert "--download" in unasked.stderr
    assert hub.asked == []

    fetched = convert(hub, tmp_path / "home", f"--input=hf:{NAME}", "--download", f"--output={tmp_path / 'b'}")
    assert fetched.returncode == 0, fetched.stderr
    read = read_pretrained(str(tmp_path / "b"))
    for name, value in model[1].items():
        np.testing.assert_array_equal(read.params[name], value, err_msg=name)
    assert not any("training_args" in path for path in hub.asked)

    asked = len(hub.asked)
    kept = convert(hub, tmp_path / "home", f"--input=hf:{NAME}", f"--output={tmp_path / 'c'}")
    assert kept.returncode == 0, kept.stderr
    assert len(hub.asked) == asked


def test_an_unknown_model_is_a_line(hub, tmp_path):
    ended = convert(hub, tmp_path / "home", "--input=hf:nobody/nothing", "--download", f"--output={tmp_path / 'a'}")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "hf:nobody/nothing cannot be fetched" in ended.stderr
    assert not os.path.exists(tmp_path / "a")
