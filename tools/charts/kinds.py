"""The kinds of values that charts share: names, quantities, Kubernetes objects that are passed through.

Every value is described where it is declared; the description becomes the comment in ``values.yaml`` and the
``description`` in ``values.schema.json``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "Amounts",
    "KubernetesList",
    "KubernetesObject",
    "Name",
    "Quantity",
    "SecretKey",
    "SecretName",
    "Texts",
    "Url",
    "Values",
]


class Values(BaseModel):
    """A closed group of values: a name that is not declared is an error, at render and not in production."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )


PASSED_THROUGH = {"x-kubernetes-object": True}
"""Marks what Kubernetes itself defines and checks: the only objects that are open."""

KubernetesObject = Annotated[dict[str, Any], Field(json_schema_extra=PASSED_THROUGH)]
KubernetesList = list[KubernetesObject]
Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=38)]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")]
Amounts = dict[str, Quantity]
Texts = dict[str, str]
Url = Annotated[str, Field(pattern=r"^(https?://.+[^/])?$")]
