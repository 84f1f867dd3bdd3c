"""The verbs: what `import whet` offers, put together from the rooms below."""

from whet.engines.torch import generate
from whet.recipe.compare import compare
from whet.recipe.compress import compress, resume
from whet.recipe.inspect import inspect
from whet.recipe.planning import plan

__all__ = ["compare", "compress", "generate", "inspect", "plan", "resume"]
