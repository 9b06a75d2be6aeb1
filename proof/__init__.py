"""How the promises of the ledger are proven: a simulator, planted bugs, real crashes, an auditor.

Nothing of the product lives here, and no room knows it. Tests and bench may use what is here; it
may import every room, but the auditor shares no code with what it audits.
"""
