"""Run scripts in one process, each as if it were called by itself: importing torch takes longer than their smoke runs.

python .ci/together.py SCRIPT... -- OPTION...
"""

import runpy
import sys
from pathlib import Path

at = sys.argv.index("--")
scripts, options, path, known = sys.argv[1:at], sys.argv[at + 1 :], list(sys.path), set(sys.modules)
for script in scripts:
    print(f"-- {script}", flush=True)
    sys.argv, sys.path[:] = [script, *options], [str(Path(script).parent.resolve()), *path[1:]]
    runpy.run_path(script, run_name="__main__")
    for name in set(sys.modules) - known:  # the next script has a `common` of its own
        if "experiments" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
