"""What proves the centre from outside: the simulator, the crash harness, the auditor."""
