"""The protocol of OpenRefine: what it asks for, who may ask, and what is refused."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from data_fixtures import write_rrf
from fastapi.testclient import TestClient
from tiny_reranker import refused

from umls_reranker import ConceptLinker
from umls_reranker.doors.http.app import create_app
from umls_reranker.serving.arguments import ServingArguments

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PAGE = "http://127.0.0.1:3333"
LOCAL = "http://127.0.0.1:8080"
DEFINITION = 'An illness of <b>the nose</b> & "throat".'
EMPTY = {"result": []}


@pytest.fixture(scope="module")
def linker(tmp_path_factory):
    """Links with names, codes, definitions and types of the miniature release, without tiers."""
    folder = tmp_path_factory.mktemp("reconcile")
    write_rrf(folder / "META")
    definition = f"C9000004|A1|AT1||MINI|{DEFINITION}|N||\n"
    (folder / "META" / "MRDEF.RRF").write_text(definition, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["index", "META", "made", "--codes", "MINI"])
        runpy.run_path(str(SCRIPTS / "index.py"))["main"]()
    linker = ConceptLinker.from_pretrained("built-in-fast", folder / "made")
    linker.folder = folder / "made"
    return linker


class Calibrated:
    """The linker as after a calibration that finds each top candidate certain."""

    def __init__(self, linker):
        self._linker = linker

    def __getattr__(self, name):
        return getattr(self._linker, name)

    def described(self, ranked):
        lists = self._linker.described(ranked)
        return [list(map(certain_at_the_top, items)) for items in lists]


def certain_at_the_top(item):
    if item.rank == 1:
        return item._replace(tier="high", accepted=True)
    return item._replace(tier="reject", accepted=False)


def client_of(linker, **settings):
    """A client of a service that is asked from this machine."""
    serving = ServingArguments(served_index=str(linker.folder), **settings)
    return TestClient(create_app(linker.reranker, serving, linker), base_url=LOCAL)


@pytest.fixture
def ask(linker):
    """Ask a service of these settings, with a form unless it is given as text."""

    def post(form, linker=linker, headers=None, **settings):
        with client_of(linker, **settings) as client:
            if isinstance(form, dict):
                form = {name: json.dumps(value) for name, value in form.items()}
                return client.post("/reconcile", data=form, headers=headers)
            kind = {"content-type": "application/x-www-form-urlencoded"}
            return client.post("/reconcile", content=form, headers=kind | (headers or {}))

    return post


@pytest.fixture
def get(linker):
    """Get a path of a service of these settings."""

    def get(path, headers=None, linker=linker, **settings):
        with client_of(linker, **settings) as client:
            return client.get(f"/reconcile{path}", headers=headers)

    return get


def results(answer):
    """Key -> the candidates of each query."""
    assert answer.status_code == 200, answer.text
    return {key: value["result"] for key, value in answer.json().items()}


def query(text, **further):
    return {"queries": {"q0": {"query": text} | further}}


# What the schemas of the protocol require


def test_the_manifest_has_what_the_protocol_requires(get):
    manifest = get("").json()
    assert "0.2" in manifest["versions"] and manifest["batchSize"] == 64
    assert all(manifest[key].startswith("http") for key in ("identifierSpace", "schemaSpace"))
    url = f"{LOCAL}/reconcile"
    assert manifest["view"]["url"] == manifest["preview"]["url"] == f"{url}/preview?id={{{{id}}}}"
    assert isinstance(manifest["preview"]["width"], int)
    assert isinstance(manifest["preview"]["height"], int)
    services = [*manifest["suggest"].values(), manifest["extend"]["propose_properties"]]
    assert {service["service_url"] for service in services} == {url}
    for service in services:
        path = service["service_path"]
        assert get(f"{path}?prefix=t").status_code == 200
    types = {kind["id"]: kind["name"] for kind in manifest["defaultTypes"]}
    assert types["T047"] == "Disease or Syndrome" and manifest["defaultTypes"][0]["id"] == "T047"
    assert "made" in manifest["name"]


def test_candidates_have_what_the_protocol_requires(ask, linker):
    answer = ask({"queries": {"q0": {"query": "head cold"}, "q1": {"query": "asthma", "limit": 2}}})
    found = results(answer)
    assert [*found] == ["q0", "q1"] and len(found["q0"]) == 5 and len(found["q1"]) == 2
    first = found["q0"][0]
    assert (first["id"], first["name"]) == ("C9000004", "common cold")
    assert first["type"] == [{"id": "T047", "name": "Disease or Syndrome"}]
    assert first["description"].startswith("head cold; An illness")
    expected = linker.link("head cold")
    for item, concept in zip(found["q0"], expected, strict=False):
        assert item["id"] == concept.cui
        assert item["score"] == pytest.approx(100 * concept.score, abs=0.01)


def test_without_a_calibrated_model_nothing_is_matched(ask):
    (found,) = results(ask(query("head cold"))).values()
    assert not any(item["match"] for item in found)
    assert [[feature["id"] for feature in item["features"]] for item in found] == [["margin"]] * 5


def test_the_tier_high_is_a_match_and_features_are_numbers(ask, linker):
    (found,) = results(ask(query("head cold"), Calibrated(linker))).values()
    assert [item["match"] for item in found] == [True, False, False, False, False]
    features = {feature["id"]: feature["value"] for feature in found[0]["features"]}
    assert (features["tier"], features["accepted"]) == (3, True)
    assert found[1]["features"][1] == {"id": "tier", "value": 0}
    assert all(isinstance(value, int | float) for value in features.values())


def test_types_and_context_are_read(ask, linker):
    context = [
        {"pid": "left", "v": ["a girl", {"id": "C1", "name": "with"}]},
        {"pid": "right", "v": 7},
        {"pid": "doctor", "v": "x"},
    ]
    given = query("cold", type="Disease or Syndrome", properties=context, type_strict="any")
    (found,) = results(ask(given)).values()
    expected = linker.link("cold", entity_type="T047", left="a girl with", right="7")
    assert [item["id"] for item in found] == [concept.cui for concept in expected[:5]]
    scores = [100 * concept.score for concept in expected[:5]]
    assert [item["score"] for item in found] == pytest.approx(scores, abs=0.01)


def test_blind_keeps_the_order_of_the_retriever_and_says_no_score(ask, get, linker):
    (found,) = results(
        ask(query("heart failing", limit=4), Calibrated(linker), blind=True)
    ).values()
    retrieved = linker.candidates(linker.read(["heart failing"]))[0].as_py()
    assert [item["id"] for item in found] == [item["cui"] for item in retrieved[:4]]
    assert {item["score"] for item in found} == {0}
    assert not any(item["match"] or "features" in item for item in found)
    assert get("", blind=True).json()["name"] != get("").json()["name"]


def test_what_cannot_be_searched_has_no_candidates(ask):
    queries = {
        "blank": {"query": " "},
        "long": {"query": "x" * 1_001},
        "none": {"query": "asthma", "limit": 0},
        "many": {"query": "asthma", "limit": 1_000},
        "unknown type": {"query": "asthma", "type": ["T047", "Q11424"]},
        "no text": {"properties": [{"pid": "left", "v": None}]},
    }
    found = results(ask({"queries": queries}))
    assert [key for key in queries if not found[key]] == ["blank", "long", "none", "no text"]
    assert found["many"][0]["id"] == "C9000012"
    assert found["unknown type"][0]["id"] == "C9000012"


def test_no_queries_have_no_answers(ask, get):
    assert ask({"queries": {}}).json() == {} == get("?queries={}").json()
    assert "versions" in ask("").json()


def test_suggested_are_concepts_like_a_text_or_with_an_id(get):
    found = get("/suggest/entity?prefix=heart").json()["result"]
    assert found[0]["id"] == "C9000021"
    assert found[0]["notable"][0]["id"] == "T023"
    assert get("/suggest/entity?prefix=heart&cursor=2").json()["result"] == found[2:]
    by_id = get("/suggest/entity?prefix=C9000012").json()["result"]
    assert by_id[0]["name"] == "asthma" and len({item["id"] for item in by_id}) == len(by_id)
    assert get("/suggest/entity?prefix=%20").json() == EMPTY
    assert get(f"/suggest/entity?prefix={'x' * 2_000}").json() == EMPTY
    assert get("/suggest/type?prefix=disease").json()["result"][0]["id"] == "T047"
    assert get("/suggest/property?prefix=LEF").json()["result"][0]["id"] == "left"


def test_a_preview_is_escaped_and_runs_nothing(get):
    page = get("/preview?id=C9000004")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for text in ("common cold", "head cold", "C9000004", "Disease or Syndrome", "MINI C9000004"):
        assert text in page.text
    assert "&lt;b&gt;the nose&lt;/b&gt; &amp;" in page.text and "<b>the nose" not in page.text
    assert refused_answer(get("/preview?id=C1"))[0] == 404


def test_columns_are_names_types_definitions_and_codes(ask, get):
    proposed = get("/properties?type=T047").json()
    columns = [column["id"] for column in proposed["properties"]]
    assert columns == ["preferred_name", "semantic_types", "definition", "code:MINI"]
    wanted = {"ids": ["C9000004", "C1"], "properties": [{"id": column} for column in columns]}
    answer = ask({"extend": wanted}).json()
    assert [column["id"] for column in answer["meta"]] == columns
    assert answer["rows"]["C9000004"] == {
        "preferred_name": [{"str": "common cold"}],
        "semantic_types": [{"str": "Disease or Syndrome"}],
        "definition": [{"str": DEFINITION}],
        "code:MINI": [{"str": "C9000004"}],
    }
    assert answer["rows"]["C1"] == {column: [] for column in columns}


# Who may ask


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3333"])
def test_pages_of_openrefine_may_read(ask, get, origin):
    for answer in (get("", {"origin": origin}), ask(query("cold"), headers={"origin": origin})):
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in get("").headers


PATHS = (
    "",
    "?queries={}",
    "/suggest/entity?prefix=cold",
    "/suggest/type?prefix=cold",
    "/suggest/property?prefix=cold",
    "/properties?type=",
    "/preview?id=C9000004",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"{PAGE}.evil.example"},
        {"host": "evil.example:8080"},
    ],
)
def test_other_pages_and_hosts_are_refused(get, path, headers):
    answer = get(path, headers)
    assert refused_answer(answer)[0] == 403 and "cold" not in answer.text
    assert "access-control-allow-origin" not in answer.headers


OTHER_HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.",
    "localhost#evil",
    "localhost?evil",
    "localhost/evil",
    "evil@localhost",
    "localhost:99999999",
    "localhost:port",
    "127.1",
    "[::1",
    "[127.0.0.1]",
    "[::2]:8080",
    "",
)


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_what_is_no_name_of_this_machine_is_refused_on_every_path(linker, host):
    with client_of(linker) as client:
        for path in ("/reconcile", "/info", "/metrics", "/health", "/openapi.json", "/unknown"):
            answer = client.get(path, headers={"host": host})
            assert refused_answer(answer)[0] == 403, path
            assert "x-model-revision" in answer.headers
        for path in ("/link", "/rank", "/rerank", "/reconcile"):
            mentions = {"mentions": [{"mention": "cold", "candidates": ["common cold"]}]}
            answer = client.post(path, json=mentions, headers={"host": host})
            assert refused_answer(answer)[0] == 403, path
            assert "C9000004" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "[::1]:8080", "[::1]", "127.0.0.2:1", "localhost:65535"],
)
def test_this_machine_has_several_names(linker, host):
    with client_of(linker) as client:
        manifest = client.get("/reconcile", headers={"host": host}).json()
        assert manifest["preview"]["url"].startswith(f"http://{host}/reconcile/")
        mentions = {"mentions": [{"mention": "cold"}]}
        assert client.post("/link", json=mentions, headers={"host": host}).status_code == 200
        assert client.get("/info", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "terms.example"},
        {"public_url": "https://terms.example"},
    ],
)
def test_who_opens_the_service_to_others_chooses_its_names(linker, settings):
    headers = {"host": "another.example"}
    with client_of(linker, **settings) as client:
        assert client.get("/info", headers=headers).status_code == 200
        mentions = {"mentions": [{"mention": "cold"}]}
        assert client.post("/link", json=mentions, headers=headers).status_code == 200
        # Its forms need no preflight, so any page may send them.
        assert refused_answer(client.get("/reconcile", headers=headers))[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "::1", "127.0.0.9"])
def test_a_service_of_this_machine_alone_has_its_names_alone(linker, host):
    with client_of(linker, host=host) as client:
        assert client.get("/info").status_code == 200
        answer = client.get("/info", headers={"host": "another.example"})
        assert refused_answer(answer)[0] == 403


def test_other_pages_and_hosts_can_be_named(get):
    settings = {
        "allow_origin": ["https://refine.example"],
        "public_url": "https://Terms.example:8443/umls/",
    }
    headers = {"origin": "https://refine.example", "host": "terms.example:8443"}
    answer = get("", headers, **settings)
    assert answer.headers["access-control-allow-origin"] == "https://refine.example"
    url = answer.json()["suggest"]["entity"]["service_url"]
    assert url == "https://Terms.example:8443/umls/reconcile"
    assert refused_answer(get("", {"origin": PAGE}, **settings))[0] == 403
    assert refused_answer(get("", {"host": "terms.example"}, **settings))[0] == 403


@pytest.mark.parametrize("path", PATHS)
def test_no_answer_is_a_script(get, path):
    mark = "&" if "?" in path else "?"
    assert refused_answer(get(f"{path}{mark}callback=steal"))[0] == 400
    headers = get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "settings",
    [
        {"allow_origin": ["*"]},
        {"allow_origin": ["127.0.0.1:3333"]},
        {"allow_origin": [f"{PAGE}/"]},
        {"public_url": "terms.example"},
        {"public_url": "https://terms.example/?x=1"},
        {"public_url": "https://user@terms.example"},
    ],
)
def test_addresses_that_are_none_are_refused_at_the_start(linker, settings):
    (key,) = settings
    serving = ServingArguments(**settings)
    assert refused(create_app, linker.reranker, serving, linker).startswith(f"{key}: ")


# What is refused


def refused_answer(answer):
    """Status and message of an answer that has the shape of an error."""
    body = answer.json()
    assert {*body} == {"error", "error_type"}
    return answer.status_code, body["error"]


@pytest.mark.parametrize(
    ("form", "status", "place"),
    [
        ("queries={", 400, "queries is not valid JSON"),
        ("queries=" + "[" * 100_000, 400, "queries is not valid JSON"),
        ("queries=%FF", 400, "the form"),
        (b"queries=\xff", 400, "the form"),
        ("&".join(f"x{number}=1" for number in range(200)), 400, "the form"),
        ("queries=", 400, "queries"),
        ("queries=[]", 422, "queries: "),
        ('queries={"q0": 7}', 422, "queries.q0: "),
        ('queries={"q0": {"query": 7}}', 422, "queries.q0.query: "),
        ('queries={"q0": {"query": "\\ud800"}}', 400, "queries is not valid JSON"),
        ('queries={"q0": {"query": "cold", "limit": -1}}', 422, "queries.q0.limit: "),
        ('queries={"q0": {"query": "cold", "limit": NaN}}', 422, "queries.q0.limit: "),
        ('queries={"q0": {"query": "cold", "type": 7}}', 422, "queries.q0.type"),
        ('queries={"q0": {"query": "cold", "properties": [7]}}', 422, "queries.q0.properties.0"),
        ('queries={"q0": {"properties": [{"v": "a"}]}}', 422, "queries.q0.properties.0.pid"),
        ('extend={"ids": ["C1"]}', 422, "extend.properties"),
        ('extend={"ids": ["C1"], "properties": [{"id": "x"}]}', 422, "extend.properties.0.id"),
        (json.dumps("x" * 2_000_000), 413, "the request is longer"),
    ],
)
def test_what_is_malformed_is_refused_by_its_place(ask, form, status, place):
    answer = refused_answer(ask(form))
    assert answer[0] == status and answer[1].startswith(place)


def test_a_malformed_address_is_refused_by_its_place(get):
    assert refused_answer(get("/preview"))[0] == 422
    status, message = refused_answer(get("/suggest/entity?prefix=a&cursor=x"))
    assert status == 422 and message.startswith("cursor: ")
    assert get("/suggest/entity?prefix=%FF%00").status_code == 200


def test_a_number_of_thousands_of_digits_is_no_context(ask):
    number = f'{{"q": {{"query": "cold", "properties": [{{"pid": "left", "v": {"9" * 9_000}}}]}}}}'
    assert ask(f"queries={number}").status_code in (200, 400)


def test_the_number_of_queries_and_ids_is_limited(ask):
    many = {f"q{number}": {} for number in range(50_000)}
    status, message = refused_answer(ask({"queries": many}))
    assert status == 413 and message.startswith("queries: ")
    assert message.endswith("(max_request_mentions)")
    wanted = {"ids": ["C1"] * 65, "properties": [{"id": "definition"}]}
    status, message = refused_answer(ask({"extend": wanted}))
    assert status == 413 and message.startswith("extend.ids: ")
    assert results(ask({"queries": {"q": {"query": "asthma"}}}, max_request_mentions=1))


def test_what_no_setting_limits_is_refused_without_naming_one(ask):
    query = {"query": "asthma", "properties": [{"pid": "left"}] * 257}
    status, message = refused_answer(ask({"queries": {"q": query}}))
    assert status == 422 and message.startswith("queries.q.properties: ")
    assert "max_request_mentions" not in message


def test_only_forms_are_posted(linker):
    with client_of(linker) as client:
        answer = client.post("/reconcile", json=query("cold"))
    assert refused_answer(answer)[0] == 415


def test_beyond_the_queue_queries_are_answered_429(linker):
    with client_of(linker, max_queue=64) as client:
        with client.app.state.batcher.admitted(64):
            form = {"queries": json.dumps(query("cold")["queries"])}
            busy = client.post("/reconcile", data=form)
        after = client.post("/reconcile", data=form)
    assert refused_answer(busy)[0] == 429 and after.status_code == 200


def test_a_service_without_an_index_says_so(linker):
    app = create_app(linker.reranker, ServingArguments())
    with TestClient(app, base_url=LOCAL) as client:
        for path in PATHS:
            if not path.startswith("/suggest/property"):
                assert refused_answer(client.get(f"/reconcile{path}"))[0] == 424, path
