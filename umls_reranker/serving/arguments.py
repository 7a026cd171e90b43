"""Keys of a recipe that this layer reads: what a deployment loads, and its limits."""

from dataclasses import dataclass

from ..core.keys import recipe_key
from ..models.arguments import BACKENDS


@dataclass
class ServingArguments:
    """Serving: what a deployment loads, and its limits."""

    # These keys say what is loaded.
    served_model: str | None = recipe_key(None, "reranker: Hub repo or local folder")
    served_revision: str | None = recipe_key(
        None, "tag, branch or commit of that repo; pin a tag in production"
    )
    served_index: str | None = recipe_key(
        None,
        "folder written by umls-reranker export_index, or a run folder; empty: "
        "the service ranks but does not link",
    )
    # These keys are those of the reranker.
    accept_tier: str = recipe_key(
        "medium",
        "lowest tier that is accepted at rank 1; medium: the model's thresholds; high: "
        "only what the certificate covers",
        ("medium", "high"),
    )
    backend: str = recipe_key(
        "torch",
        "torch, or onnx: what umls-reranker export wrote, served without torch",
        tuple(BACKENDS),
    )
    token_budget: int | None = recipe_key(
        None,
        "tokens per forward pass, padding included; empty: 1024 on a CPU, 65536 on a GPU",
        least=1,
    )
    batch_mentions: int = recipe_key(64, "maximum mentions per batch", least=1)
    # These keys are those of the HTTP service: its address, then its limits.
    host: str = recipe_key("127.0.0.1", "address to listen on")
    port: int = recipe_key(8080, "port to listen on; 0 chooses a free one", least=0, most=65535)
    max_queue: int = recipe_key(
        512, "maximum mentions queued or being ranked; further requests get status 429", least=1
    )
    max_candidates: int = recipe_key(256, "maximum candidates (texts) per mention", least=1)
    max_request_mentions: int = recipe_key(64, "maximum mentions per request", least=1)
    auto_truncate: bool = recipe_key(
        True, "/rerank: truncate long texts if the request does not say; false rejects them"
    )
    # These keys are those of the endpoint of OpenRefine.
    blind: bool = recipe_key(
        False,
        "/reconcile: candidates in the retriever's order, without scores or matches, for labels "
        "that no model leads",
    )
    allow_origin: list[str] = recipe_key(
        ["http://127.0.0.1:3333", "http://localhost:3333"],
        "/reconcile: pages whose scripts may read it, such as http://host:3333; by default those "
        "of an OpenRefine on this machine",
    )
    public_url: str | None = recipe_key(
        None,
        "URL by which others reach the service; empty: /reconcile, and with a loopback host every "
        "path, answers only under a name of this machine",
    )
