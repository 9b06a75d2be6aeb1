"""The lines of the floor and the key providers. May import `domain` and `ledger`."""
