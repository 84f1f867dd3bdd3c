"""The verbs: what `import whet` offers, put together from the rooms below."""

from whet.engines.opening import generate
from whet.formats.export import export
from whet.measure.compare import compare
from whet.recipe.compress import compress, resume
from whet.recipe.inspect import inspect
from whet.recipe.plan import plan

__all__ = ["compare", "compress", "export", "generate", "inspect", "plan", "resume"]
