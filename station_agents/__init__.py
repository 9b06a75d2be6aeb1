"""The program that runs beside the machines of one station (`python -m station_agents`).

`pcsc`: the PC/SC service of the process and its return after an accident. `reader`: one reader.
`feeder`: the machine that lays cards into the readers. `journal`: what writing segments were
released here. `session`: one chip after another through one reader. `door`: the stream to the
centre. `agent`: all of them put together. `virtual`: machines that stand in for hardware.
May import `domain` and `stubs`; never Ray, ledger, actors, gateways.
"""
