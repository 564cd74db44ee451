"""Whether a progress bar is shown. tqdm's own TQDM_DISABLE does not reach a bar that is told whether to show."""

import os


def hidden(progress: bool) -> bool:
    """Whether to hide a bar: the caller does not want one, or the variable TQDM_DISABLE is set and not 0."""
    return not progress or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
