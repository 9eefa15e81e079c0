"""What every Zeta process is built from: configuration, errors, logs, servers, channels.

Importing it keeps gRPC's core from writing lines of its own among ours (it tells of every
connection that a stopping server closes), unless GRPC_VERBOSITY says more. It also keeps the core
from starting its threads again in a child that is forked, which crashes there, because Python's
half of gRPC does so only where GRPC_ENABLE_FORK_SUPPORT is set. gRPC reads both when it is
imported, so packages whose modules import gRPC first import this one before.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
