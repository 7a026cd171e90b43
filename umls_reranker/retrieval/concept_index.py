"""What all indexes share, and the search from nearest strings to the concepts they name."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import UserError
from ..core.json_files import read_json, require_format, write_json
from .name_grouping import NameGrouping

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable

# Of FAISS a RuntimeError, of Arrow a ValueError, of NumPy what its parser of headers raises.
UNREADABLE = (
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    SyntaxError,
    TokenError,
)


class ConceptIndex:
    """An index in a folder, opened by `load`. Its files are memory-mapped.

    Args:
        path: the folder.
        description: the content of its JSON file: ``concepts``, the number of concepts, and
            ``encoder``, the `BiEncoder.identity`, if it holds vectors.

    Attributes:
        title: its name in messages.
        file: file of the description.
        schema_version: version of the description.
        grouping: its names (or mentions) and their concepts.
    """

    title: ClassVar[str]
    file: ClassVar[str]
    schema_version: ClassVar[int]
    grouping: NameGrouping

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.description = description

    def __len__(self) -> int:
        return len(self.grouping.rows)

    @classmethod
    def describe(cls, path: Path, concepts: int, **content: Any) -> None:
        """Write the description, the last file of an index."""
        write_json(
            path / cls.file, {"schema_version": cls.schema_version, "concepts": concepts} | content
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open an index.

        Raises:
            UserError: a file is missing or cannot be read, or the index is of another version.
        """
        description = read_json(path / cls.file)
        require_format(path / cls.file, description, cls.schema_version, "build_index")
        try:
            return cls(path, description)
        except UNREADABLE as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"{path} contains no readable index ({reason}); run umls-reranker build_index again"
            ) from None

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None = None) -> None:
        """Refuse concepts or an encoder other than those of the index.

        Args:
            concepts: the dictionary.
            encoder: the encoder; not needed for an index without vectors.

        Raises:
            UserError: they differ; names them.
        """
        for key, value in self.description.get("encoder", {}).items():
            if encoder is not None and encoder.identity[key] != value:
                raise UserError(
                    f"{self.title} was built with the encoder {key} {value!r}, "
                    f"not {encoder.identity[key]!r}; run umls-reranker build_index again"
                )
        if len(concepts) != self.description["concepts"]:
            raise UserError(
                f"{self.title} was built over {self.description['concepts']:,} concepts, but "
                f"there are {len(concepts):,} now; run umls-reranker build_index again"
            )
