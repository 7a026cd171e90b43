"""A release that got worse is refused before it is published, through the real Hub client."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hub_server import WRITER, HubServer
from outcome_fixtures import make_outcomes
from test_publish import REPO, make_model, refused

from umls_reranker.hub.model_folder import changing
from umls_reranker.hub.publish import find_outcomes, publish

GOOD = make_outcomes(400)
WORSE = replace(GOOD, rank=np.where(np.arange(400) % 5 == 0, -1, GOOD.rank))

# Two in fifty turned wrong, and as many right.
EXCHANGED = replace(GOOD, rank=GOOD.rank.copy())
for row in range(0, 400, 25):
    EXCHANGED.rank[row + int(np.argmax(GOOD.rank[row:] != 0))] = 0
    EXCHANGED.rank[row + int(np.argmax(GOOD.rank[row:] == 0))] = -1


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("versions") / "model")


def put(outcomes, folder):
    with changing(folder) as new:
        outcomes.save(new / "outcomes.parquet")


@pytest.fixture
def folder(parts, tmp_path):
    copy = shutil.copytree(parts, tmp_path / "model")
    put(GOOD, copy)
    return copy


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        yield server


def test_a_worse_version_is_refused_unless_it_is_forced(hub, folder):
    publish(folder, REPO, "v1")
    put(WORSE, folder)
    before = hub.repos[REPO].files("main")
    for dry_run in (True, False):
        message = refused(publish, folder, REPO, "v2", dry_run=dry_run)
        assert "is worse on the same 400 mentions of 40 documents: acc@1 0." in message
        assert message.endswith(f"than what {REPO} holds; set force_worse (--force_worse) to publish it anyway")
    assert hub.repos[REPO].files("main") == before
    publish(folder, REPO, "v2", force_worse=True)
    put(GOOD, folder)
    publish(folder, REPO, "v3")


def test_an_equal_version_passes(hub, folder):
    publish(folder, REPO, "v1")
    publish(folder, REPO, "v2")
    assert "outcomes.parquet" in hub.repos[REPO].files("v2")


def test_a_version_of_which_nothing_can_be_told_is_refused_unless_it_is_forced(hub, folder):
    publish(folder, REPO, "v1")
    put(EXCHANGED, folder)
    message = refused(publish, folder, REPO, "v2")
    assert (
        f"compared with what {REPO} holds: inconclusive on the same 400 mentions of 40 documents: the inter" in message
    )
    assert message.endswith(
        "evaluate on more documents or set a larger margin (--margin), or set force_worse (--force_worse) to publish "
        "it anyway"
    )
    publish(folder, REPO, "v2", margin=0.5)


def test_a_version_of_other_mentions_is_refused_unless_it_is_forced(hub, folder):
    publish(folder, REPO, "v1")
    put(replace(GOOD, start=GOOD.start + 1), folder)
    message = refused(publish, folder, REPO, "v2")
    assert f"cannot be compared with what {REPO} holds: the two versions share 0 mentions" in message
    assert message.endswith("on the same test split, or set force_worse (--force_worse) to publish it anyway")
    publish(folder, REPO, "v2", force_worse=True)


def test_a_folder_of_the_repo_s_name_is_not_taken_for_it(hub, folder, tmp_path, monkeypatch):
    publish(folder, REPO, "v1")
    monkeypatch.chdir(tmp_path)
    put(WORSE, folder)
    shutil.copytree(folder, REPO)
    assert "is worse on the same 400 mentions" in refused(publish, folder, REPO, "v2")
    put(GOOD, folder)
    publish(folder, REPO, "v2")


def test_a_version_published_without_outcomes_is_not_compared(hub, folder):
    (folder / "outcomes.parquet").unlink()
    publish(folder, REPO, "v1")
    assert (
        refused(find_outcomes, f"{REPO}@v1") == f"{REPO}@v1 contains no outcomes.parquet; it was published without it"
    )
    put(WORSE, folder)
    with pytest.warns(UserWarning, match=f"not compared with what {REPO} holds: it has no outcomes.parquet"):
        publish(folder, REPO, "v2")


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
