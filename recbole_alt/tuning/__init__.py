"""The command line of tuning, until ``recbole_alt.cli`` has it."""
