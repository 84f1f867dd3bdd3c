"""Which modules of a model an adapter is for: the linears of its blocks, or those of some roles."""

from __future__ import annotations

from collections.abc import Sequence

from whet.anatomy import Anatomy, Module
from whet.errors import UsageError, did_you_mean
from whet.messages import with_and

ALL = "all"


def parse_targets(text: str) -> list[str]:
    """Roles from `q, v` or `all`. Raises UsageError where none is named."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise UsageError("targets {text!r} names nothing. Give all, or roles such as q,v.", text=text)
    return found


def adapted_modules(parts: Anatomy, targets: Sequence[str], folder: str) -> list[Module]:
    """The modules of the blocks, in order, that have a linear of the roles `targets`.

    Raises UsageError for a role that the model does not have, and where there is no such module: of experts that are
    stacked into one parameter there is none.
    """
    modules = parts.modules({linear.address: True for linear in parts.linears()})
    roles = list(dict.fromkeys(linear.role for module in modules for linear in module.linears))
    wanted = roles if list(targets) == [ALL] else list(targets)
    for name in wanted:
        if name not in roles:
            stacked = {linear.role for linear in parts.linears()} - set(roles)
            if name in stacked:
                raise UsageError(
                    "{folder}: {name} is of experts that are stacked into one parameter, which no adapter of PEFT's "
                    "form is for. Roles that can be: {roles}.",
                    folder=folder,
                    name=name,
                    roles=", ".join(roles),
                )
            raise UsageError(
                "{folder} has no linears of the role {name}.{near} Its roles: {roles}.",
                folder=folder,
                name=name,
                near=did_you_mean(name, roles),
                roles=", ".join(roles),
            )
    found = [module for module in modules if any(linear.role in wanted for linear in module.linears)]
    if not found:
        raise UsageError("{folder}: no linear of its blocks was found that an adapter could be for.", folder=folder)
    return found


def role_of(module: Module) -> str:
    """The roles of a module's rows, as one word."""
    return "+".join(linear.role for linear in module.linears)


def check_rank(modules: Sequence[Module], rank: int, folder: str) -> None:
    """Raises UsageError for a rank that some module is too thin for."""
    thinnest = min(modules, key=lambda module: min(module.shape))
    if rank > min(thinnest.shape):
        raise UsageError(
            "rank {rank} is more than {module} of {folder} has: {rows} rows of {columns}. Give at most {most}, or name "
            "other targets than {roles}.",
            rank=rank,
            module=thinnest.name,
            folder=folder,
            rows=thinnest.shape[0],
            columns=thinnest.shape[1],
            most=min(thinnest.shape),
            roles=with_and([role_of(thinnest)]),
        )
