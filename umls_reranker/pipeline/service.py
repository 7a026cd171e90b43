"""Starting the HTTP service of a recipe."""

from __future__ import annotations

import signal
import sys
import warnings

from ..core.errors import UserError
from ..linking.linker import ConceptLinker
from ..serving.reranker import UMLSReranker
from .output_options import model_settings
from .recipe import Recipe

# Seconds to finish requests in progress; a container manager must wait longer before killing.
STOP_SECONDS = 30


def serve(recipe: Recipe) -> None:
    """Load what the recipe names and serve it until a signal; a dry run only loads.

    Raises:
        UserError: the extra ``serve`` is not installed, or the model or index cannot be loaded.
    """
    serving = recipe.serving
    try:
        import uvicorn

        from ..doors.http.app import create_app
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; install the extra serve") from None
    print(f"loading {serving.served_model}", file=sys.stderr, flush=True)
    reranker, linker = load_service(recipe)
    # The first call is slow: no request should wait for it. It warns of missing inputs, as
    # expected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reranker.rerank("warm-up", ["warm", "up"])
        if linker is not None:
            linker.link("warm-up")
    reranker.reset_statistics()
    app = create_app(reranker, serving, linker)
    if recipe.run.dry_run:
        print(
            f"would serve {serving.served_model} on {serving.host}:{serving.port}", file=sys.stderr
        )
        return
    config = uvicorn.Config(
        app,
        host=serving.host,
        port=serving.port,
        timeout_graceful_shutdown=STOP_SECONDS,
        access_log=False,
    )
    # Uvicorn shuts down cleanly and then re-raises the signal; that must not look like a crash.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    uvicorn.Server(config).run()


def load_service(recipe: Recipe) -> tuple[UMLSReranker, ConceptLinker | None]:
    """The reranker, and the linker if the recipe names an index."""
    serving = recipe.serving
    options = model_settings(recipe)
    if not serving.served_index:
        return UMLSReranker.from_pretrained(str(serving.served_model), **options), None
    linker = ConceptLinker.from_pretrained(
        str(serving.served_model), serving.served_index, **options
    )
    return linker.reranker, linker
