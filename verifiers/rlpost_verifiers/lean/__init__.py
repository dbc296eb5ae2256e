"""Lean 4 as a verifier: proof tasks, the checked file, the embedded Lean, and a generator of theorems to train on.

``task``, ``source``, ``messages``, ``olean``, ``audit``, ``notation``, ``formulas``, ``terms``, ``prover`` and
``theorems`` are pure; ``installation``, ``client``, ``worker`` and ``embedded`` run Lean; ``zygote`` is a script of its
own; ``verifier`` is what a configuration names.
"""
