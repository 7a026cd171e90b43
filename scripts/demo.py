#!/usr/bin/env python
"""Open a web page to try a model and review its answers.

    umls-reranker demo runs/quickstart
    umls-reranker demo org/my-reranker@v1.0.0 --index my-index --review to_review.jsonl
    umls-reranker demo my_model --lists my_lists.jsonl --review to_review.jsonl
    umls-reranker demo org/my-reranker@v1.0.0 --export_space my-space

Needs the extra demo: pip install "umls_reranker[demo]". MODEL is a run folder, a model folder or a Hub id. Without an
index, you paste candidates, with scores if MODEL reads any. --lists takes the labelled lists that MODEL was calibrated
on (umls-reranker calibrate --lists): the first mentions become examples, and recalibration adds corrections to the
lists. --review takes the queue of umls-reranker select_for_review; each choice is saved immediately to a file next to
it, for umls-reranker add_feedback. A run folder without --review gets a queue from its dev split. Nothing is uploaded,
and the page is visible on this machine only, unless --host is given.
"""

import warnings
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.script import CommandParser, run_script


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="run folder, model folder, or Hub id as ID or ID@REVISION")
    parser.add_argument("--index", help="folder written by umls-reranker export_index, or a run folder")
    parser.add_argument("--lists", type=Path, help="labelled lists that MODEL was calibrated on")
    parser.add_argument("--against", help="another version to compare with, in the form of MODEL")
    parser.add_argument("--review", type=Path, help="review queue (default: RUN.review.jsonl for a run folder)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if available)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    parser.add_argument(
        "--export_space", type=Path, help="write the page as a Hugging Face Space to this folder and exit"
    )
    return parser


def main() -> None:
    options = make_parser().parse_args()
    try:
        from umls_reranker.review.demo_page import build_page, launch
    except ImportError as error:
        raise UserError(f'{error.name} is not installed; pip install "umls_reranker[demo]"') from None
    from umls_reranker.review.demo import Demo, make_queue
    from umls_reranker.review.review_sheet import ReviewSheet
    from umls_reranker.review.space import export_space

    if options.export_space:
        export_space(options.model, options.export_space)
        print(f"{options.export_space}: upload this folder as a Space with the Gradio SDK")
        return
    # The page says it next to the answer.
    warnings.filterwarnings("ignore", message="missing inputs")
    print(f"loading {options.model}", flush=True)
    demo = Demo.open(options.model, options.index, options.against, options.device, options.lists)
    queue = options.review
    if queue is None and demo.run and demo.linker:
        queue = Path(f"{demo.run.resolve().name}.review.jsonl")
        if not queue.exists():
            make_queue(demo.linker, demo.run, queue)
    sheet = ReviewSheet(queue, queue.with_suffix(".reviewed.jsonl")) if queue else None
    print(f"opens http://{options.host}:{options.port} ; Ctrl-C stops it", flush=True)
    try:
        launch(build_page(demo, sheet), demo, server_name=options.host, server_port=options.port, quiet=True)
    except OSError:
        raise UserError(
            f"port {options.port} of {options.host} is not available; choose another with --port"
        ) from None


if __name__ == "__main__":
    run_script(main)
