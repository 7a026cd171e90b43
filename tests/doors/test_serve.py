"""umls-reranker serve as users start it: real requests, and a shutdown that answers them all."""

import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import httpx
import pytest
from list_fixtures import assert_alike
from processes import Service

from umls_reranker import ConceptLinker

pytest_plugins = ["pipeline_fixtures"]
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows ends a process without asking it to stop"
)

NAMES = ["common cold", "cold temperature", "renal failure"]


@pytest.fixture(scope="module")
def recipe(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "config.yaml"
    path.write_text(
        "run_name: serve\ndevice: cpu\nscoring_dtype: float32\nserved_model: "
        f"{finished.folder / 'model'}\n"
        f"served_index: {finished.folder}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def long_deadline(tmp_path):
    """A folder whose presence on the path lets batches wait three seconds for more mentions."""
    code = "from umls_reranker.doors.http import batching\nbatching.WAIT_SECONDS = 3\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    return tmp_path


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_concurrent_clients_are_answered_and_a_stop_answers_what_is_in_flight(
    finished, recipe, long_deadline
):
    # A batch is taken when it is full, or after three seconds.
    linker = ConceptLinker.from_run(finished.folder, device="cpu", dtype="float32")
    # /rerank gives a score by the cross-encoder to every text.
    whole = copy(linker.reranker)
    whole.exhaustive = True
    queries = [f"cold {number}" for number in range(12)]
    with (
        Service(recipe, "--batch_mentions", 12, path=long_deadline) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
        ThreadPoolExecutor(12) as pool,
    ):

        def rerank(query):
            return client.post("/rerank", json={"query": query, "texts": NAMES})

        info = client.get("/info").json()
        assert info["links"] and info["model_id"] == str(finished.folder / "model")
        for query, answer in zip(queries, pool.map(rerank, queries), strict=True):
            ranked = whole.rerank(query, NAMES)
            found = {NAMES[row["index"]]: row["score"] for row in answer.json()}
            assert found == pytest.approx({item.name: item.score for item in ranked}, abs=1e-5)
        mentions = [{"mention": "cold", "start": 21, "entity_type": "T047"}] * 12
        body = {"document": "Renal failure, not a cold.", "mentions": mentions, "top": 3}
        linked, *_ = client.post("/link", json=body).json()
        assert_alike([linked], [linker.link("cold", body["document"], 21, "T047")[:3]])
        large = client.post("/rerank", json={"query": "cold", "texts": ["x" * 2_000_000]})
        assert large.status_code == 413 and set(large.json()) == {"error", "error_type"}
        counted = 'umls_reranker_service_requests_total{path="/rerank",status="200"} 12.0'
        assert counted in client.get("/metrics").text

        # One fewer than a batch: these wait, and are in flight when the end comes.
        last = [pool.submit(rerank, query) for query in queries[1:]]
        while "umls_reranker_service_mentions_in_flight 11.0" not in client.get("/metrics").text:
            assert not all(future.done() for future in last)
        service.process.send_signal(signal.SIGTERM)
        assert [future.result().status_code for future in last] == [200] * 11
        code, printed = service.stop()
    assert code == 0 and "Traceback" not in printed


def test_a_stop_ends_half_sent_requests_without_a_traceback(tmp_path):
    code = "from umls_reranker.doors.http import server\nserver.STOP_SECONDS = 1\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    head = b"POST /rank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    sent = [head + b"Content-Length: 99\r\n\r\n{", head]
    with Service("built-in", path=tmp_path) as service:
        address = httpx.URL(service.url)
        connections = [socket.create_connection((address.host, address.port)) for _ in range(50)]
        for number, connection in enumerate(connections):
            connection.sendall(sent[number % 2])
        assert httpx.get(f"{service.url}/health").status_code == 200
        began = time.monotonic()
        code, printed = service.stop()
        assert code == 0 and time.monotonic() - began < 20
        assert connections[0].recv(1_000).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in printed and printed.count("Cancel 25 running") == 1


def test_a_recipe_that_will_not_do_ends_in_one_line(scripts, finished, recipe, tmp_path):
    assert scripts.run("serve", scripts.recipe).errors == [
        "error: served_model: the recipe names no model; set a Hub repo or a folder"
    ]
    no_model = scripts.run("serve", recipe, served_model=tmp_path / "none")
    assert no_model.code == 2 and "neither a local folder nor a Hub repo" in no_model.errors[0]
    limits = scripts.run("serve", recipe, max_request_mentions=600, dry_run=True)
    assert limits.code == 2 and "max_request_mentions: 600" in limits.errors[0]
