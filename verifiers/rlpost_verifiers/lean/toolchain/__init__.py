"""Lean where a toolchain is installed or served: the command line, the REPL, a Kimina server."""
