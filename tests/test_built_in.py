"""The model that is included in the package, and the first example of README.md, which loads it."""

import re
import subprocess
import sys
from pathlib import Path

from umls_reranker.hub.download import BUILT_IN_FOLDER
from umls_reranker.hub.model_folder import model_files, verify_model
from umls_reranker.serving.source_model import SourceModel

README = Path(__file__).parents[1] / "README.md"
CODE_AND_OUTPUT = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
# Neither is installed where it serves without a network.
WITHOUT_NETWORKS = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"


def test_the_first_example_of_the_readme_prints_what_it_says(tmp_path):
    code, output = CODE_AND_OUTPUT.search(README.read_text(encoding="utf-8")).groups()
    assert 'from_pretrained("built-in")' in code
    words = [sys.executable, "-W", "error", "-c", WITHOUT_NETWORKS + code]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.splitlines() == [line.strip() for line in output.splitlines()]
    decisions = [line.split()[2] for line in run.stdout.splitlines()]
    assert decisions == ["accept", "abstain"]


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
