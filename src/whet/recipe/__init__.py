"""The verbs: what `import whet` offers, put together from the rooms below."""

from whet.engines.torch import generate
from whet.recipe.compare import compare
from whet.recipe.compress import compress, resume

__all__ = ["compare", "compress", "generate", "resume"]
