"""What every Zeta process is built from: configuration, errors, logs, servers, channels.

Importing it keeps gRPC's core from writing lines of its own among ours (it tells of every
connection that a stopping server closes), unless GRPC_VERBOSITY says more. gRPC reads that when
it is imported, so packages whose modules import gRPC first import this one before.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
