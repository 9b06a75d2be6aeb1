"""The machines of the floor that stand in for hardware: virtual card, tray with hopper, readers.

`card`: the chip, which hands commands (`command`) to the selected application. `social`: the
social application, with `social_security`, `social_files` and `social_memory`. `financial`, with
`key_sets`, `payment`, `financial_memory` and `financial_rows`: card manager and payment
applications; `channel`: their secure channels. `memory`: all that survives a loss of power.
`crypto`, `sm4`: the chip's own. `tray_file`, `tray_rows`, `hopper`, `link`, `control`, `loop`,
`tray`: the process that holds a tray of chips and feeds them to vpcd readers. `pcscd`: a private
PC/SC service. `tray_process`: how a test or a demo starts and asks a tray.
May import `domain`; shares no cryptography with the centre.
"""
