"""Checks that turn silent failures into loud ones."""
