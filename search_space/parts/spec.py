"""The base of every spec."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen, hashable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __eq__(self, other: object) -> bool:
        # Pydantic's, less what no spec has (extra fields, private attributes, type parameters):
        # caches of costs compare many.
        return type(self) is type(other) and self.__dict__ == other.__dict__
