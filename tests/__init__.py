"""Everything that must hold, and what is measured."""

import services.kit as _before_grpc  # noqa: F401 - says why
