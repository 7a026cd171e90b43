"""Models are files of numbers and text: code in a folder is never run, and no one is asked to allow
it.
"""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_cross_encoder, tiny_encoder

from umls_reranker.core.errors import UserError
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.models.cross_encoder import PairScorer
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.models.pretrained import load_base_model

CODE = "from pathlib import Path\nPath({ran!r}).touch()\nfrom transformers import {names}\n"
OWN_CLASSES = {
    "config.json": {"AutoConfig": "own.BertConfig", "AutoModel": "own.BertModel"},
    "tokenizer_config.json": {"AutoTokenizer": ["own.BertTokenizer", "own.BertTokenizer"]},
}
LOADERS = {
    "reranker": lambda folder: PairScorer.from_folder(folder, PairTemplate(32), "cpu"),
    "base model": lambda folder: load_base_model(str(folder), None, PairTemplate(32)),
    "encoder": lambda folder: BiEncoder.from_pretrained(str(folder), device="cpu"),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", OWN_CLASSES)
def test_code_of_a_folder_is_never_run(tmp_path, monkeypatch, name, loader):
    make = tiny_encoder if loader == "encoder" else tiny_cross_encoder
    folder = make(tmp_path / "model")
    ran = tmp_path / "ran"
    names = "BertConfig, BertModel, BertForSequenceClassification, BertTokenizer"
    (folder / "own.py").write_text(CODE.format(ran=str(ran), names=names))
    content = json.loads((folder / name).read_text())
    classes = OWN_CLASSES[name]
    if loader != "encoder" and name == "config.json":
        classes = classes | {
            "AutoModelForSequenceClassification": "own.BertForSequenceClassification"
        }
    # A kind that transformers does not know leaves only the folder's own code.
    content |= {"auto_map": classes, "model_type": "own"}
    (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    with pytest.raises(UserError, match=f"{name} requires custom code"):
        LOADERS[loader](folder)
    assert not ran.exists()
    assert sys.stdin.read() == "y\n" * 10


def test_every_model_is_loaded_in_one_way():
    root = Path(__file__).resolve().parents[2]
    files = [
        path for folder in ("umls_reranker", "scripts") for path in (root / folder).rglob("*.py")
    ]
    assert [
        path.name for path in files if re.search(r"\bAuto\w+\.from_pretrained", path.read_text())
    ] == []


@pytest.mark.parametrize("loader", LOADERS)
def test_an_adapter_next_to_a_model_is_refused(tmp_path, loader):
    """transformers would load it into the model where peft is installed, and leave it out where it
    is not.
    """
    folder = (tiny_encoder if loader == "encoder" else tiny_cross_encoder)(tmp_path / "model")
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "org/other"}'
    )
    with pytest.raises(UserError, match="adapter_config.json"):
        LOADERS[loader](folder)
