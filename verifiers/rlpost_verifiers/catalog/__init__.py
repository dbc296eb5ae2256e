"""Catalogs of items, and lists of recommendations judged against them."""
