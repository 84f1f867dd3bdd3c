"""Exact bytes of parts under a choice of grids, plans, and the best choice within a budget."""

from whet.budget.knapsack import Infeasible, Option, choose, fewest_bytes, frontier
from whet.budget.plan import (
    check_model,
    check_plan,
    plan_hash,
    plan_schema,
    read_plan,
    schemes_hash,
    write_plan,
)
from whet.budget.sizes import adapted, adapter_bytes, linear_bytes, parse_size, tables, tensor_bytes, widths

__all__ = [
    "Infeasible",
    "Option",
    "adapted",
    "adapter_bytes",
    "check_model",
    "check_plan",
    "choose",
    "fewest_bytes",
    "frontier",
    "linear_bytes",
    "parse_size",
    "plan_hash",
    "plan_schema",
    "read_plan",
    "schemes_hash",
    "tables",
    "tensor_bytes",
    "widths",
    "write_plan",
]
