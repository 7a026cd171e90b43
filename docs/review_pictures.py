"""Draw docs/sheet.png and docs/openrefine.png: terms in a sheet, and in OpenRefine with a preview.

    python docs/review_pictures.py sheet runs/quickstart
    python docs/review_pictures.py openrefine runs/quickstart

Needs Debian's package chromium, and openrefine for the second.
"""

import csv
import json
import sys
import tempfile
from html import escape
from pathlib import Path
from string import ascii_uppercase

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import Page  # noqa: E402
from openrefine import OpenRefine  # noqa: E402
from processes import Service, python  # noqa: E402

TERMS = """\
source_code,mention
LAB-0001,seizures
LAB-0002,low blood sugar
LAB-0003,pain in the joints
LAB-0004,weak muscles of the face
LAB-0005,enlarged liver and spleen
LAB-0006,sees double
"""
SIZE = (1240, 700)
PROJECT_PORT = 3333
# The candidate whose preview is shown.
SHOWN = "Hepatosplenomegaly"
# What a reviewer typed.
CHOICES = {"seizures": "1", "weak muscles of the face": "1", "enlarged liver and spleen": "2"}
SHOWN_COLUMNS = 6
SHEET_SIZE = (1240, 262)
SHEET_PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ margin: 0; font: 13px sans-serif; background: white; overflow: hidden }}
table {{ border-collapse: collapse; width: 1240px }}
td {{ border: 1px solid #ccc; padding: 4px 6px; max-width: 260px }}
td {{ overflow: hidden; white-space: nowrap; text-overflow: ellipsis }}
tr:first-child td, td:first-child {{ background: #eee; color: #555; text-align: center }}
tr:nth-child(2) td {{ font-weight: bold }}
</style><table>{cells}</table>"""
OPEN = "document.querySelectorAll('.data-table-recon-candidate')"


def draw_sheet(run: Path, folder: Path) -> None:
    """The first columns of the terms' sheet, as a spreadsheet shows them."""
    (folder / "terms.csv").write_text(TERMS, encoding="utf-8")
    words = ("candidates", run.resolve(), "terms.csv", "sheet.csv", "--each_row_is_a_document")
    python("-m", "umls_reranker", *words, cwd=folder)
    with (folder / "sheet.csv").open(newline="", encoding="utf-8") as stream:
        sheet = csv.DictReader(stream)
        columns = list(sheet.fieldnames or ())[:SHOWN_COLUMNS]
        rows = [row | {"choice": CHOICES.get(row["mention"], "")} for row in sheet]
    lines = [["", *ascii_uppercase[:SHOWN_COLUMNS]], ["1", *columns]]
    for number, row in enumerate(rows, start=2):
        lines.append([str(number), *(row[column] for column in columns)])
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>" for line in lines
    )
    (folder / "sheet.html").write_text(SHEET_PAGE.format(cells=cells), encoding="utf-8")
    with Page(folder / "browser", f"file://{folder}/sheet.html", SHEET_SIZE) as page:
        (DOCS / "sheet.png").write_bytes(page.picture())


def draw_openrefine(run: Path, folder: Path) -> None:
    """The terms in OpenRefine, with candidates of the run's model."""
    (folder / "program").mkdir()
    with (
        OpenRefine(folder / "program", PROJECT_PORT) as refine,
        Service(run / "model", "--served_index", run) as serving,
    ):
        service = f"{serving.url}/reconcile"
        project = refine.import_table(TERMS, "terms of the laboratory")
        refine.reconcile(project, service, "mention")
        address = f"{refine.url}/project?project={project}"
        with Page(folder / "browser", address, SIZE) as page:
            page.until("window.ReconciliationManager")
            page.evaluate(
                "new Promise(done => ReconciliationManager.registerStandardService("
                f"{json.dumps(service)}, done, true))"
            )
            page.go(address)
            page.until(f"{OPEN}.length > 3")
            shown = f"[...{OPEN}].find(each => each.innerText.includes('{SHOWN}'))"
            place = page.evaluate(
                f"(box => [box.x + 60, box.y + 8])({shown}.getBoundingClientRect())"
            )
            page.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
            page.until("document.querySelector('.data-table-topic-popup iframe')")
            page.evaluate("new Promise(done => setTimeout(done, 2000))")
            (DOCS / "openrefine.png").write_bytes(page.picture())


PICTURES = {"sheet": draw_sheet, "openrefine": draw_openrefine}


def main() -> None:
    picture, run = sys.argv[1:]
    PICTURES[picture](Path(run), Path(tempfile.mkdtemp()))


if __name__ == "__main__":
    main()
