"""What every spec has in common, and fields that are held against a table of kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

ConvNormKind = Literal["batch", "layer"]
"""Norm of the parts that work with convolutions: those that say `has_conv_norm`.

`batch` is the published one. Where subnets share weights it is `layer`: a running statistic would
depend on which subnets were trained last.
"""


class Spec(BaseModel):
    """Base of every spec: frozen, hashable, strict about unknown fields, its numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __eq__(self, other: object) -> bool:
        # Pydantic's, less what no spec has (extra fields, private attributes, type parameters):
        # caches of costs compare many.
        return type(self) is type(other) and self.__dict__ == other.__dict__


S = TypeVar("S", bound=Spec)


def by_kind(*classes: type[S]) -> dict[str, type[S]]:
    """A table of spec classes by the default of their field `kind`."""
    return {cls.model_fields["kind"].default: cls for cls in classes}


@dataclass(frozen=True, eq=False)
class OneOf:
    """Annotation of a field that holds a spec: its `kind` says of which class of a table it is.

    The table is read when the model that has the field is built; `model_rebuild(force=True)` reads
    it again.
    """

    table: Mapping[str, type[Spec]]

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        classes: Any = Union[tuple(self.table.values())]  # noqa: UP007
        return handler.generate_schema(Annotated[classes, Field(discriminator="kind")])


@dataclass(frozen=True, eq=False)
class KeyOf:
    """Annotation of a field that holds the name of a row of a table."""

    table: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self._known, core_schema.str_schema(strict=True)
        )

    def _known(self, key: str) -> str:
        if key not in self.table:
            *others, last = map(repr, self.table)
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticKnownError("literal_error", {"expected": expected})
        return key
