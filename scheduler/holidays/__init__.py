"""One table a year: statutory holidays (first and last day) and the weekend days that are worked
instead (调休), as the State Council's General Office announces them late in the year before. A new
year is a new file here."""
