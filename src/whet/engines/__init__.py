"""One reader per runtime. `measure` asks an engine for logits, answers and times, and knows no more."""

from whet.engines.engine import Engine, Timing

__all__ = ["Engine", "Timing"]
