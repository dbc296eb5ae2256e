"""Lean 4 as a verifier: proof tasks, the checked file, the embedded Lean, and a generator of theorems to train on.

``task``, ``source``, ``messages``, ``olean``, ``audit``, ``notation``, ``formulas``, ``terms``, ``prover`` and
``theorems`` are pure; ``judge`` rules on one check; ``installation``, ``client``, ``server``, ``worker`` and
``embedded`` run Lean; ``zygote`` with ``import_once`` is a script of its own; ``verifier`` is what a configuration
names, ``command`` what ``rlpost verify lean`` runs.
"""
