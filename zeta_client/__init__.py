"""What a Python user holds: the client, the command line and the task generator."""
