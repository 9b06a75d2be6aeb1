"""The key hierarchy: token, provider, derivation, cryptograms, key blocks, key replacement.

Master, transport, index, data and head keys stay in the token. Card keys are *software-assisted*:
they live in the provider's memory for one call, since PKCS#11 has no retail MAC and no WRITE KEY
body. May import `domain` and `ledger`; `ray` only in the actor shells.
"""
