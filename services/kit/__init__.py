"""What every Zeta process is built from: configuration, errors, logs, servers, channels."""
