#!/usr/bin/env python
"""Serve a reranker over HTTP: /rerank as in Text Embeddings Inference, /rank, /link, /health, /metrics, /info.

    umls-reranker serve MODEL
    umls-reranker serve production --served_revision v1.0.0

MODEL is a folder or a Hub id, served with default settings, or a recipe that names a model and settings.
Needs the extra serve. Ctrl-C or SIGTERM stops it: it accepts no new connections
and finishes the requests in progress, for at most 30 seconds. One process serves one model; put several behind a
load balancer.
"""

import signal
import sys
import warnings

from umls_reranker.core.errors import UserError
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.serving.arguments import ServingArguments

# Seconds to finish requests in progress; the container manager must wait longer before it kills the process.
STOP_SECONDS = 30


def main() -> None:
    recipe = parse_recipe(__doc__, (ServingArguments, RunArguments), or_model="served_model")
    serving = recipe.serving
    if not serving.served_model:
        raise UserError("served_model: the recipe names no model; set a Hub repo or a folder")
    try:
        import uvicorn

        from umls_reranker.serving.http.app import create_app
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; install the extra serve") from None
    print(f"loading {serving.served_model}", file=sys.stderr, flush=True)
    reranker, linker = load(recipe)
    # The first call is slow, so no request should wait for it. Its warning about missing inputs is expected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reranker.rerank("warm-up", ["warm", "up"])
        if linker is not None:
            linker.link("warm-up")
    reranker.reset_statistics()
    app = create_app(reranker, serving, linker)
    if recipe.run.dry_run:
        print(f"would serve {serving.served_model} on {serving.host}:{serving.port}", file=sys.stderr)
        return
    config = uvicorn.Config(
        app, host=serving.host, port=serving.port, timeout_graceful_shutdown=STOP_SECONDS, access_log=False
    )
    # Uvicorn shuts down cleanly and then re-raises the signal; that must not look like a crash.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    uvicorn.Server(config).run()


def load(recipe):
    """The reranker, and the linker if the recipe names an index."""
    import umls_reranker

    serving = recipe.serving
    options = recipe.run.scoring | {"revision": serving.served_revision or None}
    options |= {"backend": serving.backend, "token_budget": serving.token_budget, "accept_tier": serving.accept_tier}
    if not serving.served_index:
        return umls_reranker.UMLSReranker.from_pretrained(serving.served_model, **options), None
    linker = umls_reranker.ConceptLinker.from_pretrained(serving.served_model, serving.served_index, **options)
    return linker.reranker, linker


if __name__ == "__main__":
    run_script(main)
