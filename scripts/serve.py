"""Serve a reranker over HTTP: /rerank (as TEI), /rank, /link, /health, /metrics, /info.

    umls-reranker serve MODEL
    umls-reranker serve production --served_revision v1.0.0

MODEL is a folder or a Hub id, served with default settings, or a recipe that names a model and
settings. Needs the extra serve. Ctrl-C or SIGTERM stops it: it accepts no new connections and
finishes the requests in progress, for at most 30 seconds. One process serves one model; put several
behind a load balancer.
"""

from umls_reranker.core.errors import UserError
from umls_reranker.pipeline.options import parse_recipe


def main() -> None:
    recipe = parse_recipe(
        __doc__, ("serving", "device", "scoring_dtype", "dry_run"), or_model="served_model"
    )
    if not recipe.serving.served_model:
        raise UserError("served_model: the recipe names no model; set a Hub repo or a folder")
    from umls_reranker.doors.http.server import serve
    from umls_reranker.pipeline.file_jobs import model_settings

    serve(recipe.serving, model_settings(recipe), dry_run=recipe.run.dry_run)
