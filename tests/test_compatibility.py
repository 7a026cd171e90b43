"""Files of another version are refused with the remedy, as docs/compatibility.md says."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outcome_fixtures import make_outcomes
from tiny_reranker import tiny_reranker
from trigram_encoder import PlainEncoder, build_index, make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.metrics import read_metrics
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.hub.file_names import SCHEMA_VERSIONS
from umls_reranker.hub.model_folder import changing
from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.retrieval.lexical_index import LexicalIndex
from umls_reranker.retrieval.mention_index import MentionIndex
from umls_reranker.retrieval.name_index import NameIndex
from umls_reranker.serving.drift import read_reference
from umls_reranker.serving.reranker import UMLSReranker

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "compatibility.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """File -> its folder, and what opens that; the folders are of this version."""
    folder = tmp_path_factory.mktemp("written")
    concepts = make_concepts(
        folder / "concepts", {"C0000001": ("", ["cold"]), "C0000002": ("", ["heart failure"])}
    )
    encoder = PlainEncoder()
    build_index(concepts, encoder, folder / "index")
    for name in ("lexical", "mention_index"):
        (folder / name).mkdir()
    LexicalIndex.build(concepts, folder / "lexical")
    mentions = pa.table(
        {"doc_id": ["1"], "mention": ["cold"], "left": [""], "right": [""], "cui": [[["C0000001"]]]}
    )
    MentionIndex.build(mentions, concepts, encoder, folder / "mention_index")
    model = tiny_reranker(folder / "model")
    IndexSettings(encoder="trigrams").save(folder)
    opened = dict.fromkeys(SCHEMA_VERSIONS, (model, UMLSReranker.from_pretrained))
    opened |= {
        "index.json": (folder, IndexSettings.load),
        "index/index.json": (folder, lambda folder: NameIndex.load(folder / "index")),
        "lexical.json": (folder / "lexical", LexicalIndex.load),
        "mention_index.json": (folder / "mention_index", MentionIndex.load),
    }
    for folder, load in opened.values():
        load(folder)
    return opened


@pytest.mark.parametrize(
    ("file", "command"),
    [*((name, "calibrate") for name in SCHEMA_VERSIONS)]
    + [
        (name, "build_index")
        for name in ("index.json", "index/index.json", "lexical.json", "mention_index.json")
    ],
)
def test_a_folder_of_another_version_is_refused_with_the_way_out(written, file, command):
    folder, load = written[file]
    path = folder / file
    text = path.read_text()
    version = json.loads(text)["schema_version"]
    assert re.search(rf"^\| `{file}` \| {version} \|", GUIDE.read_text(), re.MULTILINE)

    def write(content):
        if file in ("calibrator.json", "thresholds.json"):  # the manifest has their hashes
            with changing(folder) as new:
                (new / file).write_text(content)
        else:
            path.write_text(content)

    try:
        for other in (version - 1, None, version + 1):
            write(json.dumps(json.loads(text) | {"schema_version": other}))
            remedy = (
                "pip install -U" if other == version + 1 else f"run umls-reranker {command} again"
            )
            with pytest.raises(UserError, match=f"{path.name} .*{other}, .*{remedy}"):
                load(folder)
    finally:
        write(text)


def test_what_monitoring_and_comparison_read_is_refused_likewise(tmp_path):
    for name, read in (("reference.json", read_reference), ("metrics.json", read_metrics)):
        (tmp_path / name).write_text('{"schema_version": 0}')
        with pytest.raises(UserError, match=f"{name} .*umls-reranker evaluate"):
            read(tmp_path / name)
    make_outcomes(3).save(tmp_path / "outcomes.parquet")
    table = pq.read_table(tmp_path / "outcomes.parquet").replace_schema_metadata(
        {"schema_version": "0"}
    )
    pq.write_table(table, tmp_path / "outcomes.parquet")
    with pytest.raises(UserError, match="umls-reranker evaluate"):
        Outcomes.load(tmp_path / "outcomes.parquet")
