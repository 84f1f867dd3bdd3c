"""The report: one self-contained HTML page, and the same facts as Markdown for a model card."""

from whet.report.card import card_section
from whet.report.page import page

__all__ = ["card_section", "page"]
