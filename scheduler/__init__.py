"""Time as the rules count it: the working-day calendar, clocks and due dates."""
