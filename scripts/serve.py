#!/usr/bin/env python
"""Serve a reranker over HTTP: /rerank as Text Embeddings Inference, /rank, /link, /health, /metrics, /info.

    python scripts/serve.py recipes/production/config.yaml --served_revision v1.0.0

Needs the extra serve: pip install "umls_reranker[serve]". Ctrl-C or SIGTERM ends it: no new connection is taken, and
requests in flight are answered, for at most stop_seconds. One process serves one model; put several behind a balancer.
"""

import signal

from umls_reranker.arguments import MonitoringArguments, RunArguments, ServingArguments
from umls_reranker.cli import run_script
from umls_reranker.errors import UserError
from umls_reranker.recipe import parse_recipe


def main() -> None:
    recipe = parse_recipe(__doc__, (ServingArguments, MonitoringArguments, RunArguments))
    serving = recipe.serving
    if not serving.served_model:
        raise UserError("served_model: the recipe names no model; set a Hub repo or a folder")
    try:
        import uvicorn

        from umls_reranker.service.app import create_app
    except ImportError as error:
        raise UserError(f'{error.name} is not installed; pip install "umls_reranker[serve]"') from None
    reranker, linker = load(recipe)
    config = uvicorn.Config(
        create_app(reranker, serving, linker),
        host=serving.host,
        port=serving.port,
        timeout_graceful_shutdown=serving.stop_seconds,
        access_log=False,
    )
    # Uvicorn ends in good order and then sends itself the signal again; that must not look like a crash.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    uvicorn.Server(config).run()


def load(recipe):
    """The reranker, and the linker where the recipe names an index."""
    from umls_reranker import ConceptLinker, UMLSReranker

    serving, linker = recipe.serving, None
    revision = serving.served_revision or None
    options = {"device": recipe.run.device, "dtype": recipe.run.scoring_precision}
    options |= {"backend": serving.backend, "token_budget": serving.token_budget}
    if serving.served_index:
        linker = ConceptLinker.from_pretrained(serving.served_model, serving.served_index, revision, **options)
        reranker = linker.reranker
    else:
        reranker = UMLSReranker.from_pretrained(serving.served_model, revision, **options)
    # The first call is slow; no request should wait for it.
    reranker.rerank("warm-up", ["warm", "up"])
    if linker is not None:
        linker.link("warm-up")
    reranker.reset_statistics()
    return reranker, linker


if __name__ == "__main__":
    run_script(main)
