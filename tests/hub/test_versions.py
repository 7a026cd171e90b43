"""The outcomes of a version are found wherever it lies, through the real Hub client."""

import shutil

import pytest
from hub_server import WRITER, HubServer
from outcome_fixtures import make_outcomes
from test_publish import REPO, make_model, refused

from umls_reranker.hub.model_folder import changing
from umls_reranker.hub.publish import find_outcomes, publish


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("versions") / "model")


@pytest.fixture
def folder(parts, tmp_path):
    copy = shutil.copytree(parts, tmp_path / "model")
    with changing(copy) as new:
        make_outcomes(400).save(new / "outcomes.parquet")
    return copy


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        yield server


def test_outcomes_are_found_wherever_a_version_lies(hub, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "report")
    places = [folder, folder / "outcomes.parquet", run, run / "report"]
    assert [find_outcomes(str(place)) for place in places] == [
        folder / "outcomes.parquet",
        folder / "outcomes.parquet",
        run / "report" / "outcomes.parquet",
        run / "report" / "outcomes.parquet",
    ]
    publish(folder, REPO, "v1")
    for place in (REPO, f"{REPO}@v1"):
        found = find_outcomes(place)
        assert found.read_bytes() == (folder / "outcomes.parquet").read_bytes()
        # The weights stay where they are.
        assert not (found.parent / "model.safetensors").exists()


def test_places_without_outcomes(hub, tmp_path):
    assert (
        refused(find_outcomes, str(tmp_path))
        == f"{tmp_path} contains no outcomes.parquet; umls-reranker evaluate writes it"
    )
    assert "is neither a local folder nor a Hub repo" in refused(find_outcomes, "nowhere/at/all")
    assert "org/nothing" in refused(find_outcomes, "org/nothing")
