"""Files of the user: written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import from_os
from .ids import new_ulid

_ELSEWHERE = "Choose another place."


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, and is gone otherwise.

    Raises StoreFull, StoreReadOnly.
    """
    temporary = path.with_name(f".{path.name[:100]}.{new_ulid()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise from_os(error, path, _ELSEWHERE) from error
    finally:
        with suppress(OSError):  # gone after the rename; never hide the first error
            temporary.unlink()
