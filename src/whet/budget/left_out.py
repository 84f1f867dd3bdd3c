"""What a target does not hold of a model, and what scores do not know of it, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.grids import parse_scheme
from whet.messages import Message
from whet.targets import Target


def left_out(scores: Mapping[str, Any], target: Target) -> list[Message]:
    """What the target does not hold, one sentence each."""
    found: list[Message] = []
    tables = [part["address"] for part in scores["parts"] if part["block"] is None]
    if not target.embedding:
        found.append(
            Message(
                "{target} loads no quantized embedding or head: {names} stay as they are.",
                target=target.name,
                names=", ".join(tables),
            )
        )
    if target.schemes:
        found.append(
            Message(
                "{target} takes {schemes} from whet, and no other scheme.",
                target=target.name,
                schemes=", ".join(target.schemes),
            )
        )
    lost = [] if target.schemes else [bits for bits in range(2, 9) if bits not in target.bits]
    if lost:
        found.append(
            Message("{target} has no kernels for {bits} bits.", target=target.name, bits=", ".join(map(str, lost)))
        )
    if not target.real_zero:
        found.append(Message("{target} holds no real zeros.", target=target.name))
    there = {part["role"] for part in scores["parts"]}
    for roles in (roles for roles in target.ties if there & {*roles}):
        found.append(
            Message("{target} fuses {roles}: they have one scheme.", target=target.name, roles=", ".join(roles))
        )
    if target.divides:
        ragged = {
            part["address"]
            for part in scores["parts"]
            for scheme in part["schemes"]
            if (group := parse_scheme(scheme).group) and part["shape"][1] % group
        }
        if ragged:
            found.append(
                Message(
                    "{target} needs groups that divide the row: {count} linears have fewer choices.",
                    target=target.name,
                    count=len(ragged),
                )
            )
    return found


def unsent(scores: Mapping[str, Any]) -> list[Message]:
    """Says how many experts were priced without having been used."""
    count = len({(part["block"], part["expert"]) for part in scores["parts"] if part.get("sent") == 0})
    if not count:
        return []
    return [
        Message(
            "{count} experts were sent none of the tokens that were scored: each is taken for the least of its block. "
            "Give more text, of the kind the model is used for.",
            count=count,
        )
    ]
