"""The doors: gRPC servers for card management, factory, operators and stations, and the outbox.

What comes in is checked here and goes as chunks to the line that owns it; the lines are injected
as the Protocols of `domain.lines`. May import `domain`, `ledger` (reading only), `scheduler` and
`stubs`; never `actors` or Ray.
"""
