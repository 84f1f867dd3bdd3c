"""What the gateway takes, as OpenAPI 3.1 describes it: made from the models that check requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import whet
from whet.serving import asked
from whet.serving.rollout import ACTIONS

_TAKEN: dict[str, tuple[type[BaseModel], str]] = {
    "/v1/chat/completions": (asked.Chat, "An answer to a conversation."),
    "/v1/completions": (asked.Completion, "The text that goes on from a prompt."),
    "/feedback": (asked.Feedback, "A user's rating of an answer."),
}
_TOLD = {
    "/v1/models": "The one model there is.",
    "/health": "Whether the server lives.",
    "/ready": "Whether it would answer.",
    "/metrics": "For Prometheus.",
    "/openapi.json": "This description.",
    "/dashboard": "A page for people.",
    "/admin/rollout": "How the roll-out goes; needs the admin's key.",
    "/admin/events": "The same, as events; needs the admin's key.",
}
_OPEN = ("/health", "/ready", "/dashboard")
_REFUSALS = {
    "400": "The request is wrong, and the error names the field.",
    "401": "No key, or a wrong one.",
    "403": "Called by another name than localhost, where no keys are.",
    "404": "There is no such model, answer or route.",
    "408": "The body took too long to come.",
    "409": "The action does not apply now.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "Too many requests; Retry-After says when to come again.",
    "503": "No model answers.",
}


def description() -> dict[str, Any]:
    """Every route with what it takes."""
    kinds: list[tuple[type[BaseModel], JsonSchemaMode]] = [(kind, "validation") for kind, _ in _TAKEN.values()]
    names, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    given: dict[Any, Any] = {kind: schema for (kind, _), schema in names.items()}
    paths: dict[str, Any] = {path: {"get": _operation(told, path in _OPEN)} for path, told in _TOLD.items()}
    for path, (kind, told) in _TAKEN.items():
        content = {"application/json": {"schema": given[kind]}}
        paths[path] = {"post": {**_operation(told), "requestBody": {"required": True, "content": content}}}
    action = {"name": "action", "in": "path", "required": True, "schema": {"enum": list(ACTIONS)}}
    paths["/admin/rollout/{action}"] = {
        "post": {**_operation("What a person decides; needs the admin's key."), "parameters": [action]}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "whet serve", "version": whet.__version__},
        "paths": paths,
        "security": [{"key": []}],
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(told: str, is_open: bool = False) -> dict[str, Any]:
    responses = {"200": {"description": told}} | {status: {"description": why} for status, why in _REFUSALS.items()}
    return {"summary": told, "responses": responses} | ({"security": []} if is_open else {})
