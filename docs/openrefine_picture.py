"""Draw docs/openrefine.png: terms in OpenRefine with candidates of a model, and a preview.

    python docs/openrefine_picture.py runs/quickstart/model runs/quickstart

Needs Debian's packages openrefine and chromium.
"""

import json
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import Page  # noqa: E402
from openrefine import OpenRefine  # noqa: E402
from processes import Service  # noqa: E402

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
OPEN = "document.querySelectorAll('.data-table-recon-candidate')"


def main() -> None:
    model, index = sys.argv[1:]
    folder = Path(tempfile.mkdtemp())
    (folder / "program").mkdir()
    with (
        OpenRefine(folder / "program", PROJECT_PORT) as refine,
        Service(model, "--served_index", index) as serving,
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


if __name__ == "__main__":
    main()
