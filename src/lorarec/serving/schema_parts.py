"""Parts of the JSON schemas of responses: examples, and the fields of pages."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Total = Annotated[int, Field(description="Number of entries of the whole list.")]
NextCursor = Annotated[
    str | None,
    Field(description="Value of `cursor` for the next page; null on the last one. The header `Link` has the same."),
]


def example(value: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model with an example in the OpenAPI description."""
    return ConfigDict(json_schema_extra={"examples": [value]})


def examples_of(model: type[BaseModel]) -> list[Any]:
    """Return the examples of a response in the OpenAPI description."""
    extra = model.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    examples = extra["examples"]
    assert isinstance(examples, list)
    return examples
