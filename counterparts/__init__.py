"""Stand-ins of the outside world that speak the real contracts: card management, card factory.

They hold what the outside would hold; chips and sealed keys pass to the floor as files of a
documented format. May import `domain` and `stubs`; never the centre, its lines or its stations.
"""
