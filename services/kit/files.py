"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Put *data* in the place of what *path* holds. Raises OSError, and then leaves it as it was.

    A full disk leaves nothing half written behind, and no reader ever sees a part. A link stays
    one; a pipe or a device, which cannot be replaced, is written to.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    half = path.with_name(f".{path.name}.partial")
    try:
        half.write_bytes(data)
        half.replace(path)
    except BaseException as error:
        half.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the name that the user knows
        raise
