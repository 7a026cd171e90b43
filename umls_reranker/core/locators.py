"""What of a path or URL may be published."""

import re
from pathlib import PurePosixPath, PureWindowsPath


def portable_locator(locator: str) -> str:
    """The publishable part of a path or URL; relative paths, Hub ids and other text stay as is."""
    if re.match(r"https?://", locator, re.IGNORECASE):
        # A query may contain a signature.
        return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", locator)[0])
    path = PureWindowsPath(locator) if PureWindowsPath(locator).drive else PurePosixPath(locator)
    is_local = path.is_absolute() or locator.startswith(("~", "file:")) or ".." in path.parts
    return (path.name or "folder") if is_local else locator
