"""`make chaos`: a whole floor at work while its processes are killed at random moments."""
