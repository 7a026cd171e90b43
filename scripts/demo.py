"""Open a web page to try a model.

    umls-reranker demo my_model
    umls-reranker demo my_model --lists my_lists.jsonl

Needs the extra demo. MODEL is a model folder or a Hub id. The first rows of --lists become
examples. Nothing is uploaded.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.pipeline.command import CommandParser


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the model")
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--lists", type=Path, help="JSON Lines with rows that become examples")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if available)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    options = parser.parse_args()
    try:
        from umls_reranker.serving.demo import EXAMPLES, build_page
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; install the extra demo") from None
    from umls_reranker import UMLSReranker

    examples: Sequence[str] = EXAMPLES
    if options.lists:
        with options.lists.open(encoding="utf-8") as lines:
            examples = [line.strip() for line in islice(lines, 5)]
    reranker = UMLSReranker.from_pretrained(options.model, options.revision, options.device)
    page = build_page(reranker, options.model, examples or EXAMPLES)
    page.launch(
        server_name=options.host, server_port=options.port, share=False, enable_monitoring=False
    )
