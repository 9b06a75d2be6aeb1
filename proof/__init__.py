"""Proof that the promises of the ledger hold, whatever happens (docs/proof.md)."""
