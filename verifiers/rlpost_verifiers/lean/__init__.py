"""Lean 4 as a verifier.

``task``, ``source``, ``extract`` and ``messages`` are the contract and its text side; ``embedded`` is Lean from a pip
package, ``toolchain`` Lean where a toolchain is installed; ``verifier`` is what a configuration names, ``command`` what
``rlpost verify lean`` runs; ``conformance`` runs gold proofs and cheats against a backend; ``problems`` with
``theorems`` generates theorems to train on; ``dojo`` reads LeanDojo's data and offers proofs step by step.
"""
