"""A frozen table of settings, and what is said of one that cannot be."""

from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from realm.errors import ConfigError


class Config(BaseModel):
    """A frozen table of settings; unknown keys are refused, as are nan and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, values: object) -> object:
        """Complete a nested table with this stage's own defaults, not with its class's.

        `--set optimizer.weight_decay=0` must leave the stage's learning rate as it is.
        """
        if not isinstance(values, dict):
            return values
        table = dict(cast("dict[str, object]", values))
        for name, field in cls.model_fields.items():
            given = table.get(name)
            if isinstance(field.default, Config) and isinstance(given, dict):
                table[name] = field.default.model_dump() | cast("dict[str, object]", given)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return self.model_dump(mode="json")


C = TypeVar("C", bound=Config)
MAX_SEED = (1 << 32) - 1
"""Of training, which multiplies its seed by a million: torch takes 64 bits."""
MAX_SHOWN = 200
"""Characters of what was found, in a message."""


def check(cls: type[C], table: dict[str, Any], *, section: str) -> C:
    """Return `cls` made from one table of settings.

    Raises:
        ConfigError: found, expected and what to do, for every setting that is wrong.
    """
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        told = [_explain(cls, dict(item)) for item in error.errors()]
        raise ConfigError(f"[{section}] " + "; ".join(told)) from None


def _explain(cls: type[Config], error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        owner: type[Config] = cls
        for part in error["loc"][:-1]:
            inner = owner.model_fields[str(part)].annotation if part in owner.model_fields else None
            if isinstance(inner, type) and issubclass(inner, Config):
                owner = inner
        return f"there is no setting {short(repr(place))}; there are {sorted(owner.model_fields)}"
    return f"{short(place) or 'settings'}: found {short(repr(error['input']))}, {error['msg']}"


def short(text: str) -> str:
    """Return a text as a message shows it."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
