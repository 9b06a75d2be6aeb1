"""The machines of the floor that stand in for hardware: virtual card, tray with hopper, readers.

`card`, `crypto`, `memory`: the chip. `tray_file`, `hopper`, `link`, `control`, `loop`, `tray`: the
process that holds a tray of chips and feeds them to vpcd readers. `pcscd`: a private PC/SC
service. `tray_process`: how a test or a demo starts and asks a tray.
May import `domain`; shares no cryptography with the centre.
"""
