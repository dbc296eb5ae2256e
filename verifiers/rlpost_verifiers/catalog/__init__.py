"""Catalogs of items, and verification of recommendation lists against them."""
