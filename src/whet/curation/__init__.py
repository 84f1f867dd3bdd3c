"""Curation of text: duplicates, languages, quality, leaks, personal data, hard cases."""
