"""The model that is included in the package, and an example that loads it."""

import subprocess
import sys
from pathlib import Path

from umls_reranker.hub.download import BUILT_IN_FOLDER
from umls_reranker.hub.model_folder import model_files, verify_model
from umls_reranker.serving.source_model import SourceModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "rerank_a_list.py"
# Neither is installed where it serves without a network.
WITHOUT_NETWORKS = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"


def test_the_example_needs_no_network_library(tmp_path):
    words = [sys.executable, "-W", "error", "-c", WITHOUT_NETWORKS + EXAMPLE.read_text(encoding="utf-8")]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == "" and run.stdout.count("->") == 2


def test_it_is_whole_small_and_says_whose_it_is():
    info = verify_model(BUILT_IN_FOLDER)
    files = model_files(BUILT_IN_FOLDER)
    assert info["base_model"] is None and {path.name for path in files} == {
        path.name for path in BUILT_IN_FOLDER.iterdir()
    }
    assert sum(path.stat().st_size for path in files) < 1e6
    card = (BUILT_IN_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "MedMentions" in card and "CC0" in card


def test_lists_of_other_documents_take_its_counts_and_no_certificate():
    source = SourceModel.load("built-in")
    assert len(source.reranker.calibration.history.certificates) == 1 and source.history.certificates == ()
    # The PMID of a document that it was calibrated on.
    assert source.is_new(["26316050", "another document"]).tolist() == [False, True]
    assert len(source.counts(of_training=False)) > 5_000 and len(source.counts(of_training=True)) == 0
