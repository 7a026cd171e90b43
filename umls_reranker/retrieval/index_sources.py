"""What the indexes of a folder are built from and load."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable
    from .index_settings import IndexSettings
    from .name_index import NameIndex

# What an index can be built from.
INDEX_INPUTS = ("concepts", "mentions", "encoder", "vectors")


class IndexSources:
    """What retrievers of a run or index folder are built from or load; opened when first used.

    Args:
        folder: the run or index folder.
        settings: how its names are encoded and indexed.
        device: of the encoder, as for `BiEncoder.from_pretrained`.
    """

    def __init__(self, folder: Path, settings: IndexSettings, device: str) -> None:
        self.folder = folder
        self.settings = settings
        self.device = device

    @cached_property
    def concepts(self) -> ConceptTable:
        """The dictionary."""
        from ..vocab.concept_table import ConceptTable

        return ConceptTable.load(self.folder / "concepts")

    @cached_property
    def known_mentions(self) -> pa.Table | None:
        """Mentions of all splits but test, in the columns that indexes read; None if it has none.

        Those of a document are not found for its own mentions, so that lists of all splits are as
        those of test.
        """
        import pyarrow as pa

        from ..core.arrow_files import open_arrow

        files = sorted((self.folder / "mentions").glob("*.arrow"))
        columns = ["mention", "left", "right", "cui", "doc_id"]
        known = [open_arrow(file).select(columns) for file in files if file.stem != "test"]
        return pa.concat_tables(known) if known else None

    @cached_property
    def encoder(self) -> BiEncoder:
        """The bi-encoder, on its device."""
        return self.settings.load_encoder(self.folder, self.device)

    @cached_property
    def names(self) -> NameIndex:
        """The dense index."""
        from .name_index import NameIndex

        return NameIndex.load(self.folder / "index", self.settings.index_parameters or "")
