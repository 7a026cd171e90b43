"""A page to try a model in the browser; no data leaves the machine.

    pip install -e ".[demo]"
    python examples/demo.py built-in

The model is a folder or a Hub id. For a Space on the Hub, this file is app.py, requirements.txt
names umls_reranker, and the variable MODEL the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from umls_reranker import UMLSReranker

COLUMNS = ("rank", "name", "cui", "score", "margin", "tier", "accepted")
EXAMPLES = (
    "heart attack\nHeart Failure | C0018801\nMyocardial Infarction | C0027051\n"
    "Cardiac Arrest | C0018790",
    "cold\nCommon Cold | C0009443\nCold Temperature | C0009264\n"
    "Chronic Obstructive Airway Disease | C0024117",
    "renal failure\nKidney Failure | C0035078\nKidney Failure, Acute | C0022660\n"
    "Heart Failure | C0018801",
)


def read_question(text: str) -> Mapping[str, Any]:
    """A row of JSON; or a mention, and in each further line a candidate, ``NAME`` or ``NAME | ID``.

    Raises:
        ValueError: the text is neither.
    """
    if text.lstrip().startswith("{"):
        row = json.loads(text)
        return {"candidates": [], **row, "entity": row.get("entity", row.get("mention"))}
    mention, _, lines = text.strip().partition("\n")
    parts = [line.partition("|") for line in lines.splitlines() if line.strip()]
    candidates = [{"name": name.strip(), "cui": cui.strip() or None} for name, _, cui in parts]
    return {"entity": mention.strip(), "candidates": candidates}


def ranked_table(reranker: UMLSReranker, text: str) -> list[list[Any]]:
    """The ranked candidates of a question, as rows of `COLUMNS`."""
    row = read_question(text)
    sides = (row.get("left") or "", row.get("right") or "")
    ranked = reranker.rerank(row["entity"], row["candidates"], row.get("entity_type"), *sides)
    cells = [[item.as_row()[name] for name in COLUMNS] for item in ranked]
    return [[round(cell, 3) if isinstance(cell, float) else cell for cell in row] for row in cells]


def build_page(reranker: UMLSReranker, name: str) -> gr.Blocks:
    """The page, on which the first example is ranked."""

    def answer(text: str) -> list[list[Any]]:
        try:
            return ranked_table(reranker, text)
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error)) from None

    with gr.Blocks(analytics_enabled=False, title=f"umls_reranker: {name}") as page:
        note = " · scores are not calibrated for your lists" if name.startswith("built-in") else ""
        gr.Markdown(f"**umls_reranker** · {name}{note}")
        box = gr.Textbox(
            EXAMPLES[0],
            lines=6,
            label="A row of lists as JSON; or a mention, then one candidate per line: NAME | ID",
        )
        ask = gr.Button("Rank candidates", variant="primary")
        first = answer(EXAMPLES[0])
        table = gr.Dataframe(first, headers=list(COLUMNS), interactive=False, label="Ranked")
        gr.Examples(
            [[example] for example in EXAMPLES],
            box,
            table,
            answer,
            cache_examples=False,
            run_on_click=True,
        )
        ask.click(answer, box, table)
    return page


if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL", "built-in")
    build_page(UMLSReranker.from_pretrained(model), model).launch(share=False)
