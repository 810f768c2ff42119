"""What all commands do about errors: one line instead of a traceback, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from toolkit.errors import UserError

GO_ON = "interrupted; run the same command again to go on"


def exit_code(work: Callable[[], int | None], interrupted: str = GO_ON) -> int:
    """What `work` returns (None: 0); 2 for what the user can fix, 130 for ctrl-C. Anything else is raised."""
    try:
        return work() or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
