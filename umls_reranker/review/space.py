"""The demo page as a Hugging Face Space: a folder to upload."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import yaml

from ..core.errors import UserError
from ..core.version import __version__
from ..hub.model_folder import published_files, verify_model
from .demo import located

APP = '''\
"""Demo page of a reranker, written by umls-reranker demo --export_space."""

from pathlib import Path

from umls_reranker.review.demo import Demo
from umls_reranker.review.demo_page import build_page, launch

MODEL = {model!r}
# Optional: an index of umls-reranker export_index, if its names may be published. Without it, candidates are pasted.
INDEX = Path(__file__).parent / "index"

demo = Demo.open(MODEL, INDEX if INDEX.is_dir() else None)
launch(build_page(demo), demo)
'''
README = """\
---
{front}---

# {title}

Ranks candidate concepts for a mention, with calibrated probabilities and a decision to map or abstain. Input is
not stored. This is a tool for mapping text, not a medical device.
"""


def export_space(model: str, folder: Path) -> None:
    """Write app.py, requirements.txt and README.md, and a copy of the model if it is a local folder.

    Indexes and queues are left out: they hold names of a vocabulary or patients' text.

    Args:
        model: as for `Demo.open`.
        folder: folder to write.

    Raises:
        UserError: `folder` is not empty, or the model folder is incomplete.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; give a new folder for the Space")
    folder.mkdir(parents=True, exist_ok=True)
    name, _ = located(model)
    is_local = Path(name).is_dir()
    if is_local:
        verify_model(Path(name))
        for file, content in published_files(Path(name)).items():
            path = folder / "model" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    title = f"Try {Path(model).name}"
    front = {"title": title, "sdk": "gradio", "sdk_version": version("gradio"), "app_file": "app.py"}
    files = {
        "app.py": APP.format(model="model" if is_local else model),
        "requirements.txt": f"umls_reranker[demo]=={__version__}\n",
        "README.md": README.format(front=yaml.safe_dump(front, sort_keys=False), title=title),
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
