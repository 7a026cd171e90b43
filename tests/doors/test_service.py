"""The HTTP service: the contract of Text Embeddings Inference, decisions, limits and figures."""

import asyncio
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import copy
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest
import uvicorn
from fastapi.exceptions import RequestValidationError
from list_fixtures import assert_alike
from processes import Service
from tiny_reranker import tiny_reranker, with_cut

from umls_reranker import ConceptLinker, UMLSReranker, UserError
from umls_reranker.doors.http import middleware
from umls_reranker.doors.http.app import create_app
from umls_reranker.doors.http.batching import Batcher, Call
from umls_reranker.doors.http.server import timed_protocol
from umls_reranker.linking.linked_concept import LinkedConcept
from umls_reranker.serving.arguments import ServingArguments

NAMES = ["common cold", "cold temperature", "renal failure"]
CONCEPTS = [
    {"name": name, "cui": f"C{number}", "preferred_name": name, "semantic_types": ["T047"]}
    for number, name in enumerate(NAMES)
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return UMLSReranker.from_pretrained(
        tiny_reranker(tmp_path_factory.mktemp("service") / "model"), device="cpu"
    )


@pytest.fixture
def reranker(loaded):
    """Of one test alone: it may replace methods, and older pytest leaves those of an instance."""
    return copy(loaded)


class OneConcept:
    """Links every mention to one concept."""

    retriever = SimpleNamespace(index_key="")

    def __init__(self, reranker):
        self.reranker = reranker

    def read(self, mentions, documents, starts, *, lefts, rights):
        for mention, document in zip(mentions, documents, strict=True):
            if document is not None and mention not in document:
                raise ValueError(f"the mention {mention!r} is not in its document")
        return pa.table({"entity": mentions, "left": lefts, "right": rights})

    def candidates(self, table):
        return pa.array([CONCEPTS] * len(table))

    def described(self, ranked):
        tiers = ("high", "medium", "low")
        return [
            [
                LinkedConcept(*item)._replace(tier=tier)
                for item, tier in zip(items, tiers, strict=False)
            ]
            for items in ranked
        ]


@asynccontextmanager
async def running(reranker, linker=None, **limits):
    app = create_app(reranker, ServingArguments(**limits), linker)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        client.batcher = app.state.batcher
        yield client


def ask(reranker, *requests, linker=None, **limits):
    """Answers to requests (path, body[, content type]) or a path alone, one after another."""

    async def work():
        async with running(reranker, linker, **limits) as client:
            return [
                await (
                    client.get(one)
                    if isinstance(one, str)
                    else client.post(one[0], **_body(*one[1:]))
                )
                for one in requests
            ]

    answers = asyncio.run(work())
    return answers if len(answers) > 1 else answers[0]


def _body(content, kind="application/json"):
    if isinstance(content, dict | list):
        return {"json": content}
    return {"content": content, "headers": {"content-type": kind} if kind else {}}


def refused(answer):
    """Status, error_type and error of an answer that has the shape of an error."""
    body = answer.json()
    assert set(body) == {"error", "error_type"}
    return answer.status_code, body["error_type"], body["error"]


# The contract of Text Embeddings Inference


def test_rerank_answers_as_text_embeddings_inference(reranker):
    body = {
        "query": "cold",
        "texts": NAMES,
        "raw_scores": False,
        "return_text": False,
        "truncate": True,
        # Unknown keys; nothing that a request says is loaded.
        **{"model": "/etc", "revision": "v9", "index": "../..", "model_id": "org/x"},
    }
    expected = {item.name: item for item in reranker.rerank("cold", NAMES)}
    plain, raw, texts = ask(
        reranker,
        ("/rerank", body),
        ("/rerank", body | {"raw_scores": True}),
        ("/rerank", body | {"return_text": True, "truncation_direction": "Right"}),
    )
    assert plain.status_code == 200
    assert [set(row) for row in plain.json()] == [{"index", "score"}] * 3
    for answer, key in ((plain, "score"), (raw, "logit")):
        assert [NAMES[row["index"]] for row in answer.json()] == [*expected]
        scores = [getattr(item, key) for item in expected.values()]
        assert [row["score"] for row in answer.json()] == pytest.approx(scores, abs=1e-5)
    assert [row["text"] for row in texts.json()] == [NAMES[row["index"]] for row in texts.json()]


def test_texts_that_the_tokenizer_does_not_know_have_raw_scores_but_no_logit(reranker):
    texts = ["骨折", "cold"]
    body = {"query": "发热", "texts": texts, "raw_scores": True}
    mention = {"mention": "发热", "candidates": [{"name": text} for text in texts]}
    raw, ranked = ask(reranker, ("/rerank", body), ("/rank", {"mentions": [mention]}))
    expected = reranker.cross_encoder.score(["发热"] * 2, texts).logits
    found = {row["index"]: row["score"] for row in raw.json()}
    assert [found[0], found[1]] == pytest.approx(expected, abs=1e-5)
    (items,) = ranked.json()
    assert [item["logit"] for item in items] == [None, None]
    assert not any(item["accepted"] for item in items)


def test_raw_scores_are_sorted_by_themselves(reranker, monkeypatch):
    rerank_batch = reranker.rerank_batch

    def fused(*arguments, **options):
        # As where features are weighed: the best by probability is the worst by the cross-encoder
        # alone.
        return [
            [one._replace(logit=float(one.rank)) for one in items]
            for items in rerank_batch(*arguments, **options)
        ]

    monkeypatch.setattr(reranker, "rerank_batch", fused)
    body = {"query": "cold", "texts": NAMES}
    plain, raw = ask(reranker, ("/rerank", body), ("/rerank", body | {"raw_scores": True}))
    assert [row["score"] for row in raw.json()] == pytest.approx([3.0, 2.0, 1.0])
    assert [row["index"] for row in raw.json()] == [row["index"] for row in reversed(plain.json())]


def candidate(content):
    """The body of a mention with this second candidate."""
    return b'{"mentions": [{"mention": "cold", "candidates": [{"name": "cold"}, %s]}]}' % content


def mention(**fields):
    return {"mentions": [{"candidates": []} | fields]}


SECOND = "mentions.0.candidates.1"


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/rerank", {"texts": NAMES}, "query:"),
        ("/rerank", {"query": "cold", "texts": [None]}, "texts.0:"),
        ("/rerank", {"query": "cold", "texts": ["cold", " "]}, "texts.1:"),
        ("/rerank", b'{"query": "\\ud800", "texts": ["a"]}', "query:"),
        ("/rerank", [], "the body:"),
        ("/rank", candidate(b'{"name": "flu", "bm25_score": 1%s}' % (b"0" * 400)), f"{SECOND}:"),
        ("/rank", candidate(b'{"name": "flu", "bm25_score": NaN}'), f"{SECOND}: bm25_score"),
        ("/rank", candidate(b'{"name": "flu", "_source": {"x_score": NaN}}'), f"{SECOND}:"),
        ("/rank", candidate(b'{"name": "flu", "semantic_types": 7}'), f"{SECOND}.semantic_types"),
        ("/rank", candidate(b'{"cui": "C1"}'), f"{SECOND}.name:"),
        ("/rank", candidate(b'" "'), f"{SECOND}.name:"),
        ("/rank", mention(), "mentions.0.mention:"),
        ("/link", mention(entity=" "), "mentions.0.entity:"),
        ("/link", mention(mention="cold", entity_type=[0] * 300), "mentions.0.entity_type"),
        ("/link", mention(mention="cold", entity_type=["T047"] * 300), "mentions.0.entity_type"),
    ],
)
def test_bad_input_is_refused_by_its_place(reranker, path, body, place):
    status, kind, error = refused(ask(reranker, (path, body)))
    assert (status, kind) == (422, "Validation") and error.startswith(place)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b'{"query": "cold", "texts": ["\xff"]}',
        # A number of thousands of digits.
        b'{"query": "cold", "texts": ["a"], "x": %s}' % (b"9" * 5_000),
    ],
)
def test_a_body_that_is_no_json_is_refused(reranker, body):
    assert refused(ask(reranker, ("/rerank", body)))[:2] == (400, "Validation")


def test_no_texts_are_refused_as_empty(reranker):
    status, kind, error = refused(ask(reranker, ("/rerank", {"query": "cold", "texts": []})))
    assert (status, kind) == (400, "Empty") and "texts" in error


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-json"])
def test_a_body_that_does_not_say_it_is_json_is_refused(reranker, kind):
    answer = ask(reranker, ("/rerank", b'{"query": "cold", "texts": ["a"]}', kind))
    assert refused(answer)[:2] == (415, "Validation")


def test_a_body_that_does_not_say_its_length_is_limited_too(reranker):
    async def chunks():
        for _ in range(100):
            yield b" " * 30_000

    assert refused(ask(reranker, ("/rerank", chunks())))[:2] == (413, "Validation")


def test_what_is_too_long_is_cut_only_where_the_request_allows(reranker):
    long = {"query": "cold", "texts": ["flu", "temperature " * 20]}
    cut, kept = ask(
        reranker, ("/rerank", long | {"truncate": True}), ("/rerank", long | {"truncate": False})
    )
    assert cut.status_code == 200
    assert refused(kept)[:2] == (413, "Validation")
    assert ask(reranker, ("/rerank", long)).status_code == 200
    assert ask(reranker, ("/rerank", long), auto_truncate=False).status_code == 413


def test_too_many_texts_are_refused_before_any_is_tokenized(reranker, monkeypatch):
    def encode(*columns):
        raise AssertionError("texts beyond the limit were tokenized")

    monkeypatch.setattr(reranker.cross_encoder.encoder, "encode", encode)
    body = {"query": "cold", "texts": NAMES * 2, "truncate": False}
    status, kind, error = refused(ask(reranker, ("/rerank", body), max_candidates=5))
    assert (status, kind) == (413, "Validation")
    assert error.startswith("texts:") and "max_candidates" in error


@pytest.mark.parametrize(
    ("path", "body", "count", "place", "setting"),
    [
        ("/rerank", b'{"query": "a", "texts": [%s]}', 1, "texts:", "max_candidates"),
        ("/link", b'{"mentions": [%s]}', 1, "mentions:", "max_request_mentions"),
        (
            "/rank",
            b'{"mentions": [%s]}' % b",".join([b'{"mention": "a", "candidates": [%s]}'] * 64),
            64,
            "mentions.0.candidates:",
            "max_candidates",
        ),
    ],
)
def test_a_list_that_is_too_long_makes_one_error(
    reranker, monkeypatch, path, body, count, place, setting
):
    errors = []
    invalid = RequestValidationError.errors
    monkeypatch.setattr(
        RequestValidationError,
        "errors",
        lambda error: errors.extend(invalid(error)) or invalid(error),
    )
    items = b",".join([b"0"] * (900_000 // count))
    status, _, error = refused(ask(reranker, (path, body % ((items,) * count))))
    assert status == 413 and len(errors) == count
    assert error.startswith(place) and setting in error


def test_info_says_what_is_served(reranker):
    answer = ask(
        reranker, "/info", served_model="org/model", served_revision="v1", max_candidates=7
    )
    info = answer.json()
    assert (info["model_id"], info["model_sha"], info["max_client_batch_size"]) == (
        "org/model",
        "v1",
        7,
    )
    assert set(info["model_type"]) == {"reranker"} and info["max_input_length"] == 32
    assert info["manifest_sha256"] == reranker.info["sha256"]["reranker.json"]
    assert answer.headers["x-model-revision"] == f"v1+{info['manifest_sha256'][:12]}"
    unversioned = ask(reranker, "/health").headers["x-model-revision"]
    assert unversioned == info["manifest_sha256"][:12]


def test_a_half_sent_request_is_not_waited_for(reranker, monkeypatch):
    monkeypatch.setattr(middleware, "READ_SECONDS", 0.2)

    async def half():
        yield b'{"query": "cold"'
        await asyncio.sleep(20)

    async def work():
        async with running(reranker) as client:
            began = time.monotonic()
            answer = await client.post(
                "/rerank", content=half(), headers={"content-type": "application/json"}
            )
            whole = await client.post("/rerank", json={"query": "cold", "texts": ["a"]})
            return answer, time.monotonic() - began, whole

    answer, seconds, whole = asyncio.run(work())
    assert refused(answer)[0] == 408 and seconds < 10
    assert answer.headers["connection"] == "close" and whole.status_code == 200


def test_every_answer_names_the_version(reranker, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(reranker, "rerank_batch", fails)
    rerank = ("/rerank", {"query": "cold", "texts": ["a"]})
    long = ("/rerank", {"query": "cold", "texts": ["x" * 2_000_000]})
    bad = ("/rerank", {"query": "cold"})
    unlinked = ("/link", {"mentions": [{"mention": "cold"}]})
    requests = [rerank, long, bad, unlinked, "/models", "/rerank", "/info", "/metrics"]
    answers = ask(reranker, *requests, served_revision="v1")
    assert [answer.status_code for answer in answers] == [500, 413, 422, 424, 404, 405, 200, 200]
    version = f"v1+{reranker.info['sha256']['reranker.json'][:12]}"
    assert [answer.headers.get_list("x-model-revision") for answer in answers] == [[version]] * 8
    kinds = [refused(answer)[1] for answer in answers[:6]]
    assert kinds == ["Backend", "Validation", "Validation", "Backend", "Validation", "Validation"]
    assert "broken" not in answers[0].text and "umls_reranker_mentions_total " in answers[-1].text
    counted = [("/rerank", 500), ("/rerank", 413), ("/link", 424), ("other", 404)]
    for path, status in counted:
        assert f'service_requests_total{{path="{path}",status="{status}"}} 1.0' in answers[-1].text


# Decisions


def test_rerank_scores_all_texts_and_rank_those_that_can_win(reranker, monkeypatch):
    monkeypatch.setattr(reranker, "calibration", with_cut())
    whole = copy(reranker)
    whole.exhaustive = True
    expected = {item.name: item.logit for item in whole.rerank(NAMES[0], NAMES)}
    mention = {"mention": NAMES[0], "candidates": [{"name": name} for name in NAMES]}
    body = {"query": NAMES[0], "texts": NAMES, "raw_scores": True}
    texts, ranked = ask(reranker, ("/rerank", body), ("/rank", {"mentions": [mention]}))
    assert {NAMES[row["index"]]: row["score"] for row in texts.json()} == pytest.approx(
        expected, abs=1e-5
    )
    assert [row["scored"] for row in ranked.json()[0]] == [1, 1, 1]


def test_rank_gives_the_decision_of_the_reranker(reranker):
    candidates = [
        NAMES[0],
        *({"name": name, "cui": "C1", "retrieval_score": 0.5} for name in NAMES[1:]),
    ]
    mentions = [
        {"mention": "cold", "candidates": candidates, "entity_type": "T047", "left": "a "},
        {"mention": "renal failure", "candidates": [], "entity_type": ["T047", "T121"]},
    ]
    first, second = ask(reranker, ("/rank", {"mentions": mentions})).json()
    expected = reranker.rerank("cold", candidates, "T047", left="a ")
    assert_alike([first, second], [expected, []])


def test_a_row_of_a_file_is_a_mention(reranker):
    candidates = [{"name": name, "semantic_types": "T047"} for name in NAMES]
    row = {
        "entity": "cold",
        "candidates": candidates,
        "entity_type": None,
        "left": None,
        "right": None,
        "doc_id": 1,
    }
    mention = {"mention": "cold", "candidates": candidates}
    for path, linker in (("/rank", None), ("/link", OneConcept(reranker))):
        answers = ask(
            reranker,
            *[(path, {"mentions": [one]}) for one in (row, mention, row | mention)],
            linker=linker,
        )
        assert [answer.status_code for answer in answers] == [200] * 3
        assert answers[0].json() == answers[1].json() == answers[2].json()


def test_warnings_hold_no_text_of_requests(tmp_path):
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "model"), device="cpu")
    candidate = {"name": "cold", "secret_score": 1}
    mention = {"mention": "cold", "entity_type": ["secret", "T047"], "candidates": [candidate]}
    with pytest.warns(UserWarning, match="unknown") as caught:
        assert ask(reranker, ("/rank", {"mentions": [mention]})).status_code == 200
    assert not any("secret" in str(warning.message) for warning in caught)


def test_link_answers_for_each_mention(reranker):
    mentions = [{"mention": "cold", "start": 2}, {"mention": "fever"}]
    request = {"document": "A cold, a fever.", "mentions": mentions, "top": 2}
    absent = {"document": "A cold.", "mentions": [{"mention": "fever"}]}
    answer, missing = ask(
        reranker, ("/link", request), ("/link", absent), linker=OneConcept(reranker)
    )
    assert [len(rows) for rows in answer.json()] == [2, 2]
    assert set(answer.json()[0][0]) == {
        *(
            "cui",
            "name",
            "preferred_name",
            "semantic_types",
            "rank",
            "logit",
            "score",
            "margin",
            "tier",
            "accepted",
        ),
        *("model_name", "scored"),
    }
    status, kind, error = refused(missing)
    assert (status, kind) == (422, "Validation") and "'fever'" in error


@pytest.mark.parametrize("path", ["/link", "/rank"])
def test_a_mention_that_is_too_long_is_an_error_in_its_place(reranker, path):
    sizes = (1_001, 1_000, 28_000)
    mentions = [{"mention": "a" * size, "candidates": NAMES} for size in sizes]
    bodies = [(path, {"mentions": some}) for some in (mentions, mentions[1:2])]
    whole, alone, info = ask(reranker, *bodies, "/info", linker=OneConcept(reranker))
    first, second, third = whole.json()
    assert [second] == alone.json() and [*first] == [*third] == ["error"]
    assert "28,000" in third["error"] and info.json()["max_mention_chars"] == 1_000


def test_the_limit_of_candidates_is_of_requests_not_of_what_the_index_finds(reranker):
    request = {"mentions": [{"mention": "cold"}]}
    answer = ask(
        reranker, ("/link", request), linker=OneConcept(reranker), max_candidates=len(NAMES) - 1
    )
    assert answer.status_code == 200 and len(answer.json()[0]) == len(NAMES)


# Load


def test_beyond_the_queue_requests_are_answered_429_at_once(reranker):
    body = {"query": "cold", "texts": NAMES}

    async def work():
        async with running(reranker, max_queue=8, max_request_mentions=8) as client:
            with client.batcher.admitted(8):
                over = await client.post("/rerank", json=body)
                figures = (await client.get("/metrics")).text
            return over, figures, await client.post("/rerank", json=body)

    over, figures, after = asyncio.run(work())
    status, kind, error = refused(over)
    assert (status, kind) == (429, "Overloaded") and "max_queue: 8" in error
    assert over.headers["retry-after"] == "1"
    assert "umls_reranker_service_mentions_in_flight 8.0" in figures and after.status_code == 200


def ranked(reranker, monkeypatch, *names, leave=None, fails=None, **limits):
    """Mentions that come at once, of which one leaves: answers or errors, and the batches."""
    batches = []
    rerank_batch = reranker.rerank_batch

    def counted(entities, **columns):
        batches.append(len(entities))
        if fails is not None:
            fails(entities)
        return rerank_batch(entities, **columns)

    monkeypatch.setattr(reranker, "rerank_batch", counted)

    async def work():
        batcher = Batcher(reranker, 64, 64, **limits)
        async with batcher.running():
            calls = [[Call(name, ["flu"])] for name in names]
            tasks = [asyncio.create_task(batcher.rank(call)) for call in calls]
            await asyncio.sleep(0)
            if leave is not None:
                tasks[leave].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return [type(answer) for answer in asyncio.run(work())], batches


def test_what_comes_at_once_is_one_batch_and_a_full_one_leaves_the_rest(reranker, monkeypatch):
    with monkeypatch.context() as patch:
        assert ranked(reranker, patch, *NAMES) == ([list] * 3, [3])
    assert ranked(reranker, monkeypatch, *NAMES, max_pairs=2) == ([list] * 3, [2, 1])


def test_a_client_that_leaves_is_not_ranked(reranker, monkeypatch):
    answers, batches = ranked(reranker, monkeypatch, *NAMES, leave=1)
    assert answers == [list, asyncio.CancelledError, list] and batches == [2]


@pytest.mark.parametrize("error", [ValueError, UserError])
def test_a_mention_that_fails_fails_alone(reranker, monkeypatch, error):
    def fails(entities):
        if NAMES[1] in entities:
            raise error("bad row")

    answers, batches = ranked(reranker, monkeypatch, *NAMES, fails=fails)
    assert answers == [list, error, list] and batches == [3, 1, 1, 1]


def test_an_error_that_is_no_mentions_is_not_repeated_for_each(reranker, monkeypatch):
    def fails(entities):
        raise RuntimeError("CUDA out of memory")

    assert ranked(reranker, monkeypatch, *NAMES, fails=fails) == ([RuntimeError] * 3, [3])


@pytest.mark.parametrize(("error", "status"), [(ValueError, 422), (UserError, 424)])
def test_an_error_of_a_mention_has_a_status(reranker, monkeypatch, error, status):
    def fails(*arguments, **options):
        raise error("bad row")

    monkeypatch.setattr(reranker, "rerank_batch", fails)
    answer = ask(reranker, ("/rerank", {"query": "cold", "texts": NAMES}))
    assert refused(answer)[0] == status


# umls-reranker serve as users start it: real requests, and a shutdown that answers them all


pytest_plugins = ["pipeline_fixtures"]
stops = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows ends a process without asking it to stop"
)


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
@stops
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


@stops
def test_a_stop_ends_half_sent_requests_without_a_traceback(tmp_path):
    code = "from umls_reranker.doors.http import server\nserver.STOP_SECONDS = 1\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    head = b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sent = [head + b"Content-Length: 99\r\n\r\n{", head]
    with Service("built-in-fast", path=tmp_path) as service:
        address = httpx.URL(service.url)
        connections = [socket.create_connection((address.host, address.port)) for _ in range(50)]
        for number, connection in enumerate(connections):
            connection.sendall(sent[number % 2])
        assert httpx.get(f"{service.url}/health").status_code == 200
        began = time.monotonic()
        code, printed = service.stop()
        assert code == 0 and time.monotonic() - began < 20
        assert connections[0].recv(1_000).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in printed


@stops
def test_a_recipe_that_will_not_do_ends_in_one_line(scripts, finished, recipe, tmp_path):
    missing = tmp_path / "none"
    for options, named in (
        ({"served_model": ""}, "served_model"),
        ({"served_model": missing}, str(missing)),
        ({"max_request_mentions": 600, "dry_run": True}, "max_request_mentions: 600"),
    ):
        ended = scripts.run("serve", recipe, **options)
        assert ended.code == 2 and len(ended.errors) == 1 and named in ended.errors[0]


ANSWERED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"


@pytest.mark.parametrize("begin", [b"", b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nX", ANSWERED])
def test_a_connection_that_stops_inside_its_headers_is_closed(reranker, begin):
    app = create_app(reranker, ServingArguments())
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=timed_protocol(0.5), log_level="error", lifespan="on")
    )

    async def work():
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        received = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        server.should_exit = True
        await serving
        return received

    assert asyncio.run(work()).startswith(b"HTTP/1.1 200" if begin == ANSWERED else b"")
