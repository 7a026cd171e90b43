"""A model without a cross-encoder: ranked, served, saved and published, also without torch."""

import json

import pytest
from hub_server import WRITER, HubServer
from list_fixtures import write_lists
from outcome_fixtures import NO_FIGURES
from processes import absent, python
from tiny_reranker import refused, tiny_reranker, tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.hub.file_names import CROSS_ENCODER_FILES, ONNX
from umls_reranker.hub.manifest import model_files, verify_model
from umls_reranker.hub.model_folder import changing
from umls_reranker.models.arguments import BUILT_IN, BUILT_IN_FOLDERS

REPO = "org/tiny-lists"
HEAVY = ("torch", "transformers", "onnxruntime", "accelerate", "tokenizers")
# What neither serving nor publishing needs.
OTHERS = (
    "datasets",
    "evaluate",
    "faiss",
    "sklearn",
    "pandas",
    "rich",
    "threadpoolctl",
    "tensorboard",
)
CANDIDATES = [
    {"name": "Common Cold", "cui": "C0009443", "sapbert_score": 0.9},
    {"name": "cold", "cui": "C0009264", "sapbert_score": 0.8},
]


@pytest.fixture
def folder(tmp_path):
    folder = tiny_reranker_without_cross_encoder(tmp_path / "model")
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES | {"split": "labelled"}))
    return folder


def scores(reranker):
    return {item.name: item.score for item in reranker.rerank("cold", CANDIDATES, "T047")}


# Where no torch is installed

USE = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from umls_reranker import UMLSReranker
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.doors.http.app import create_app
from umls_reranker.linking.linker import ConceptLinker

folder, candidates = Path(sys.argv[1]), json.loads(sys.argv[2])
results = []
for backend in ("torch", "onnx"):
    reranker = UMLSReranker.from_pretrained(folder, device="cuda", dtype="float16", backend=backend)
    results.append(reranker.rerank("cold", candidates, "T047"))
results += reranker.rerank_batch(["cold", "cold"], [candidates] * 2, ["T047"] * 2)
saved = reranker.save_pretrained(folder.parent / "saved")
results.append(UMLSReranker.from_pretrained(saved).rerank("cold", candidates, "T047"))
reranker.push_to_hub("org/tiny-lists", "v1.0.0")
published = UMLSReranker.from_pretrained("org/tiny-lists", revision="v1.0.0", backend="onnx")
results.append(published.rerank("cold", candidates, "T047"))
rows = [[item.as_row() for item in ranked] for ranked in results]
mention = {"entity": "cold", "candidates": candidates, "entity_type": "T047"}
app = create_app(reranker, ServingArguments(served_model=str(folder)))
with TestClient(app, base_url="http://localhost") as client:
    rows += client.post("/rank", json={"mentions": [mention]}).json()
    texts = {"query": "cold", "texts": ["Common Cold", "cold"], "truncate": False}
    tei = client.post("/rerank", json=texts).json()
    raw = client.post("/rerank", json=texts | {"raw_scores": True})
    info = client.get("/info").json()
    statuses = [client.get(path).status_code for path in ("/health", "/metrics", "/openapi.json")]
loaded = [name for name in json.loads(sys.argv[3]) if sys.modules.get(name)]
answer = {"rows": rows, "tei": tei, "raw": [raw.status_code, raw.json()], "info": info}
print(json.dumps(answer | {"statuses": statuses, "loaded": loaded}))
"""


@pytest.mark.parametrize("hidden", [(), HEAVY + OTHERS], ids=["installed", "absent"])
def test_all_of_it_works_without_torch(folder, tmp_path, hidden):
    expected = [
        item.as_row()
        for item in UMLSReranker.from_pretrained(folder).rerank("cold", CANDIDATES, "T047")
    ]
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "cache", token=WRITER)
        words = ("-W", "error::RuntimeWarning", "-c", absent(hidden) + USE)
        told = (folder, json.dumps(CANDIDATES), json.dumps(HEAVY))
        done = python(*words, *told, env=environment)
        files = hub.repos[REPO].files("v1.0.0")
    answer = json.loads(done.stdout)
    assert answer["loaded"] == []
    assert len(answer["rows"]) == 7 and all(rows == expected for rows in answer["rows"])
    assert [row["logit"] for row in expected] == [None, None] and expected[0]["scored"] == 0
    assert [row["index"] for row in answer["tei"]] == [1, 0]
    assert answer["raw"][0] == 422 and "remove raw_scores" in answer["raw"][1]["error"]
    assert answer["info"]["model_dtype"] == "float64" and answer["info"]["weights_sha256"] is None
    assert answer["statuses"] == [200] * 3
    # What the Hub got is what a folder of such a model holds.
    written = {"README.md", ".gitattributes", "config.json"}
    names = {path.name for path in model_files(folder)} | written
    of_networks = {*CROSS_ENCODER_FILES, ONNX} - {"config.json"}
    assert files.keys() == names and names.isdisjoint(of_networks)
    assert "no cross-encoder" in files["README.md"].decode()


def test_the_commands_run_without_torch(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(absent(HEAVY))

    def run(*words):
        return python("-m", "umls_reranker", *words, path=tmp_path, cwd=tmp_path)

    rows = [{"entity": "cold", "candidates": CANDIDATES, "entity_type": "T047"}] * 2
    write_lists(tmp_path / "in.jsonl", rows)
    done = run("rerank", folder, "in.jsonl", "out.jsonl")
    assert done.stdout.startswith("2 mentions ranked, 0 with an error, written to out.jsonl\n")
    assert f"would serve {folder}" in run("serve", folder, "--dry_run").stderr


# The folder


@pytest.mark.parametrize("backend", [None, "torch", "onnx"])
@pytest.mark.parametrize("name", ["config.json", ONNX])
def test_a_cross_encoder_in_such_a_folder_is_refused(folder, name, backend):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    assert str(folder / name) in refused(verify_model, folder, backend)


def test_saving_over_a_model_with_a_cross_encoder_removes_it(folder, tmp_path):
    former = tiny_reranker(tmp_path / "former")
    UMLSReranker.from_pretrained(folder).save_pretrained(former)
    present = {*CROSS_ENCODER_FILES} & {path.name for path in former.iterdir()}
    assert present == {"config.json"}
    verify_model(former)


# The model that is included in the package


def test_the_built_in_model_is_the_packages_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(BUILT_IN_FOLDERS, BUILT_IN, folder)
    monkeypatch.chdir(tmp_path)
    reranker = UMLSReranker.from_pretrained(BUILT_IN)
    assert reranker.folder == folder and scores(reranker) == scores(
        UMLSReranker.from_pretrained(folder)
    )
    assert "v1" in refused(UMLSReranker.from_pretrained, BUILT_IN, "v1")
    # A folder of this name comes first.
    tiny_reranker(tmp_path / BUILT_IN)
    assert UMLSReranker.from_pretrained(BUILT_IN).cross_encoder is not None
