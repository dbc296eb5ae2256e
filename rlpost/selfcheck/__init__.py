"""Checks that turn silent failures into errors."""
