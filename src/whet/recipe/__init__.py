"""The verbs: what `import whet` offers, put together from the rooms below."""

from whet.engines.opening import generate
from whet.recipe.compare import compare
from whet.recipe.compress import compress, resume
from whet.recipe.export import export
from whet.recipe.inspect import inspect
from whet.recipe.planning import plan

__all__ = ["compare", "compress", "export", "generate", "inspect", "plan", "resume"]
